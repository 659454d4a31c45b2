"""A bounded run is a transaction. The steps are numbered as in docs/guarantees.md; a test kills the
process before and after each.

1 recover                   recover.py
2 plan                      make_plan.py (begin.py for an empty ledger; preconditions.py: what refuses the run)
3 read and write            read_and_write.py runs pipeline/graph.py: nothing is visible
4 prove and prepare         prove.py, prepare.py: one atomic statement
5 commit table by table     commit.py
6 mark committed, and tell Kafka

command.py is the page that calls them. repair.py: a run whose streams have expired between 4 and 6.
"""
