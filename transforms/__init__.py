"""The steps of the pipeline, a package each, in the order of the flow.

read          ReadRecords: exact ranges of offsets from Kafka, as blocks of records;
              Feed, DiscoverPartitions, ReadLoop: partitions without an end
decode        DecodeRecords: values to Arrow columns; late, future and broken records are
              rejected; rows split by shard; JudgeArrivals: the same within ReadLoop
deduplicate   DeduplicateTransactions: accepts the first sighting of each id; the rule, and
              where its state is kept
write         WriteRows: the rows of a shard into pending write streams;
              CollectReports: what was read and written, in one place
stream        DeduplicateAndWrite, WriteTotals, WriteGaps: dedup and write as one step,
              for streaming
destinations  where rows are written: one contract, and a package for each implementation of it
model         what all of them share: elements, tables, schema, coordinates, fingerprints,
              buckets, totals
metrics       what the steps count

Nothing here knows a runner or the command line.
"""
