"""`demo`: the pipeline on one machine, killed and started again; command.py plays it.

The demo's Kafka, the stand-in for BigQuery and the run to be killed are processes of their own.
"""
