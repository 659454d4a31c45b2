"""Where rows go: one contract (contract/), one test suite, one folder for each destination.

The folders of the destinations have the same doors; open.py chooses. The questions that mean the
same in every SQL dialect are in sql/. docs/destinations.md says how to write another.
"""
