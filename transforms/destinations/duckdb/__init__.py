"""The contract on one DuckDB file.

destination.py puts the parts together; the other files are named like the parts of the contract.
"""
