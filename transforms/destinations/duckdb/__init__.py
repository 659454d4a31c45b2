"""The contract on one DuckDB file.

destination.py is the door; the other files are named like the parts of the contract.
"""
