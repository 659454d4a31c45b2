"""A soak test of the streaming job: real Kafka, real Flink, faults at random moments.

python -m tests.soak --seconds=600 --seed=1 (`make soak`) runs one schedule of faults after the
other, and stops at the first whose tables are wrong. schedule.py: which faults, from the seed.
traffic.py: what is sent, with sending.py, which knows where each record lies in Kafka. faults.py
does them to the job of job.py. oracle.py: what the tables must hold, coordinate by coordinate.
"""
