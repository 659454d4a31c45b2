"""The contract on BigQuery: the Storage Write API for rows, query jobs for the ledgers.

destination.py is the door; the other files are named like the parts of the contract.
"""
