"""The steps of the pipeline, a room each, in the order of the flow. Knows payments, knows no runner
and no argv.

read          ReadRecords: records of exact offset ranges, as blocks
decode        DecodeRecords: values to Arrow columns; late, future and broken records set apart; rows by shard
deduplicate   DeduplicateTransactions: the first sighting of each id; the rule, and where its state is kept
write         WriteRows: a shard's rows into pending write streams; CollectReports: what was read and written
stream        deduplicate and write as one step, for streaming
destinations  where rows go: one contract, and a folder for each destination that keeps it
model         the words that all of them share: elements, tables, schema, coordinates, fingerprints, buckets, totals
"""
