"""The life of a streaming job (docs/streaming.md), and who owns the tables (docs/guarantees.md).

command.py      `run --streaming`: begins a job, submits it, follows it
announce.py     a job begins, and what has changed by that is printed
outcome.py      what `--json` says at the end of the command
build.py        from the configuration to the settings of every step of its graph
follow.py       looks after the job: figures.py, flink_job.py, metrics_port.py are what it sees
superseded.py   ends the jobs that it takes over
restore.py      which checkpoint a job begins with; shards.py: how many shards it has
status_command.py, stop_command.py   the other two commands; ledger_report.py, job_report.py: what
                `status` says; held_file.py: the same while the job's worker has the file open
The protocol, without Beam:
begin.py        a job begins, with or without a checkpoint; take_tables.py: it claims the tables
found.py        a partition that is found while the job runs
stop.py         a job is stopped, with or without its cluster
hand_over.py    what a stopped job hands over: totals that it owed, gaps that it had not written
tables_end.py   how far the tables reach above the positions of the chain
records.py      the records of the chain that all of them write
"""
