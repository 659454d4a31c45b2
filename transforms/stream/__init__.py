"""Deduplicate and write as one step, for streaming; no runner drives it yet.

bundle.py is the door. The files follow the step numbers of docs/streaming.md: recover.py is 1,
shard.py is 2, append.py is 3, totals.py and gaps.py are 4.
"""
