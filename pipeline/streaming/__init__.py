"""Who owns the tables: a streaming job begins, is restored, and is stopped (docs/guarantees.md).

begin.py     a job begins, with or without a checkpoint
found.py     a partition that is found while the job runs
stop.py      a job is stopped, with or without its cluster
hand_over.py what a stopped job hands over: totals that it owed, gaps that it had not written
records.py   the records of the chain that all of them write

No Beam is imported here.
"""
