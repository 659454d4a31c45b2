"""DecodeRecords: values to Arrow columns; late, future and broken records apart; rows by shard.

decode_records.py is the transform.
"""
