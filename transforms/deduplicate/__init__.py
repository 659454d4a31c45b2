"""DeduplicateTransactions: the first row of each id is a payment, every further one a duplicate.

deduplicate_transactions.py is the transform, rule.py the rule apart from Beam and state.
"""
