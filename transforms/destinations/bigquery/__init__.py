"""The contract on BigQuery: the Storage Write API for rows, query jobs for the ledgers.

destination.py puts the parts together; the other files are named like the parts of the contract.
"""
