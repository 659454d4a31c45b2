"""Deduplicate and write as one step, for streaming.

The DoFns are deduplicate_and_write.py, write_totals.py and write_gaps.py; stop_on_error.py is what
they do about an error that a restart cannot mend. All else knows no runner: bundle.py is the door,
and the files follow the step numbers of docs/streaming.md. recover.py is 1 (with claim.py and
claimed_shard.py), shard.py is 2, append.py is 3 (refusals.py: what a refused append means),
totals.py and gaps.py are 4. adopt.py takes tables over without a checkpoint.
"""
