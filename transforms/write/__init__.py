"""WriteRows: the rows of a shard into pending write streams; CollectReports: all reports, once.

write_rows.py and collect_reports.py are the transforms.
"""
