"""Where rows go. One contract (contract/), one test suite, one folder per destination with the same
doors; open.py chooses. docs/destinations.md says how to write another.
"""
