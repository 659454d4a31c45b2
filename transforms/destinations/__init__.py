"""Where rows go: one contract (contract/), one test suite, one folder for each destination.

Each destination's folder has the same files, one for each part of the contract; open.py chooses
the destination. The questions that mean the same in every SQL dialect are in sql/.
docs/destinations.md says how to write another destination.
"""
