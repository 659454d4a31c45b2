"""ReadRecords: the records of exact offset ranges, as blocks, and a report of what was read.

read_records.py is the transform.
"""
