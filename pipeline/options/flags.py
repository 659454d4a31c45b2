"""The options of `run`, beside all of Beam's.

Values stay text here; run_config.py checks them, where a message can name the fix.
"""

from __future__ import annotations

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.options.arguments import add_output_arguments
from pipeline.options.destination import add_destination_arguments


class KafkaOptions(PipelineOptions):
    """Source: where payments come from.

    Beam itself declares --bootstrap_servers (run_config.py shows it here).
    """

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--topic",
            action="append",
            metavar="NAME",
            help="Kafka topic; may be given several times. Required.",
        )
        parser.add_argument(
            "--adopt_topic",
            action="append",
            metavar="NAME@ID",
            help="go on with a topic that moved or was created again: the refusal prints its id",
        )
        parser.add_argument(
            "--start",
            metavar="earliest|latest|timestamp:TIME",
            help="where the first run begins; TIME such as 2026-01-01T00:00:00Z (earliest)",
        )
        parser.add_argument(
            "--start_offsets",
            metavar="PATH",
            help="the first run begins where a job of Spark Structured Streaming stopped: its"
            " checkpoint folder, or a file of the folder's offsets/",
        )
        parser.add_argument(
            "--consumer_config",
            metavar="FILE",
            help="properties file with librdkafka's names, such as sasl.password=...",
        )
        parser.add_argument(
            "--group_id",
            metavar="NAME",
            help="group that offsets are reported under, for lag monitors (payment-pipeline)",
        )


class DestinationOptions(PipelineOptions):
    """Destination: where rows go."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        add_destination_arguments(parser)


class PaymentOptions(PipelineOptions):
    """What is a payment."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--schema",
            metavar="FILE",
            help="BigQuery JSON schema file of the payload; default: a plain payment",
        )
        parser.add_argument(
            "--dedup_key",
            default="transaction_id",
            metavar="FIELD",
            help="field that names a payment",
        )
        parser.add_argument(
            "--event_time_field",
            default="event_time",
            metavar="FIELD",
            help="field with the event time",
        )
        parser.add_argument(
            "--epoch_unit",
            metavar="s|ms|us|ns",
            help="what numbers in TIMESTAMP fields count since 1970: s, ms, us or ns",
        )
        parser.add_argument(
            "--amount_field",
            metavar="FIELD",
            help="field that control totals add up (amount, if the schema has it)",
        )
        parser.add_argument(
            "--currency_field",
            metavar="FIELD",
            help="field that amounts are added up by (currency, if the schema has it)",
        )
        parser.add_argument(
            "--unknown_fields",
            default="keep",
            metavar="keep|reject",
            help="fields that the schema does not name: keep (as JSON) or reject",
        )
        parser.add_argument(
            "--max_record_bytes",
            default="8MiB",
            metavar="SIZE",
            help="longer messages are rejected",
        )


class DeduplicationOptions(PipelineOptions):
    """Time and deduplication: how long a payment is known, and what is late."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--dedup_horizon",
            default="1h",
            metavar="TIME",
            help="watermark delay: how far copies may lie apart",
        )
        parser.add_argument(
            "--extra_retention",
            default="0s",
            metavar="TIME",
            help="keep ids that much longer, for copies stamped anew",
        )
        parser.add_argument(
            "--max_future_skew",
            default="5m",
            metavar="TIME",
            help="event times further ahead of the clock are rejected",
        )
        parser.add_argument(
            "--idle_timeout",
            default="1m",
            metavar="TIME",
            help="after that an empty partition follows the clock; or never",
        )
        parser.add_argument(
            "--dedup_layout",
            default="sharded",
            metavar="sharded|per_key",
            help="sharded (fast) or per_key (one state cell per id, the textbook form)",
        )
        parser.add_argument(
            "--shards",
            metavar="N",
            help="hash ranges of ids (4, fewer in a small run; with --streaming 4 for each worker"
            " process at the first start; another number needs a stop and --from_tables)",
        )


class SeedOptions(PipelineOptions):
    """Seed: payments of a job before this one."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--seed_ids",
            metavar="TABLE",
            help="first run: ids of this table count as paid: PROJECT.DATASET.TABLE, or a table"
            " where the destination is",
        )
        parser.add_argument(
            "--seed_key", metavar="COLUMN", help="its column of ids (transaction_id)"
        )
        parser.add_argument(
            "--seed_event_time", metavar="COLUMN", help="its column of event times (event_time)"
        )


class StreamingOptions(PipelineOptions):
    """Streaming: a job that never ends."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--topic_pattern",
            metavar="REGEX",
            help="read every topic whose whole name matches, also those that are created later",
        )
        parser.add_argument(
            "--restore",
            metavar="PATH",
            help="go on from a checkpoint or savepoint: its path, or latest",
        )
        parser.add_argument(
            "--from_tables",
            action="store_true",
            help="go on without a checkpoint, also where another job owns the tables",
        )
        parser.add_argument(
            "--detach",
            action="store_true",
            help="end once the job runs; needs workers outside of this process",
        )
        parser.add_argument(
            "--metrics_port",
            metavar="N",
            help="serve the job's figures to Prometheus on 127.0.0.1, while this process lives",
        )


class RunOptions(PipelineOptions):
    """Run: size of a transaction, and what stops it."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--max_records_per_run",
            metavar="N",
            help="records in one transaction, fair over the partitions (1000000)",
        )
        parser.add_argument(
            "--state_dir",
            metavar="PATH",
            help="folder where runs keep the ids for the next process, on any file system that Beam"
            " knows, or none; default: beside a DuckDB file, none for BigQuery",
        )
        parser.add_argument(
            "--every",
            metavar="TIME",
            help="run again and again in one process, at multiples of this time, such as 10s",
        )
        parser.add_argument(
            "--on_data_loss",
            default="fail",
            metavar="fail|accept",
            help="offsets deleted before they were read: fail, or accept and record them",
        )
        parser.add_argument(
            "--max_rejected_rate",
            metavar="SHARE",
            help="of a topic's records; above it a transaction stops, nothing visible; 1: never"
            " (0.1)",
        )
        parser.add_argument(
            "--reject_records",
            metavar="TOPIC:PARTITION:OFFSET,...",
            help="records whose rows the destination refused: they are rejected",
        )


class LogOptions(PipelineOptions):
    """Summary and logs."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        add_output_arguments(parser, "print the summary as JSON")


OURS = (
    KafkaOptions,
    DestinationOptions,
    PaymentOptions,
    DeduplicationOptions,
    SeedOptions,
    StreamingOptions,
    RunOptions,
    LogOptions,
)
"""In the order of `run --help`. The first line of each docstring is the title there."""
