"""From the arguments of `run` to a RunConfig; every value is checked before anything starts."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.logs import FORMATS
from pipeline.options.arguments import one_of, required
from pipeline.options.config import (
    EARLIEST,
    LATEST,
    NEVER,
    NO_TRANSACTIONS,
    OFFSETS,
    TIMESTAMP,
    AdoptTopic,
    RunConfig,
    Start,
)
from pipeline.options.consumer_config import load_consumer_config
from pipeline.options.destination import destination_of, destination_options
from pipeline.options.quantities import parse_duration, parse_share, parse_size, parse_whole
from pipeline.options.run_parser import run_parser
from pipeline.options.runner import runner_of
from pipeline.options.schema_file import load_schema
from pipeline.options.seed import seed_table
from pipeline.options.streaming import shards_of, streaming_of
from transforms.decode.timestamps import NotATime, TimeOutOfRange, parse_timestamp
from transforms.deduplicate.deduplicate_transactions import LAYOUTS
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import UsageError
from transforms.model.schema import EPOCH_UNITS

_MINUTE_US, _SECOND_US = 60_000_000, 1_000_000
_PATTERN = re.compile(r"[*?\[]")

NONE = "none"
"""Value of --state_dir for no folder."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_ADOPTED = re.compile(r"([A-Za-z0-9._-]{1,249})(?:#(\d{1,9}))?@([^\s@]+)", re.ASCII)
_COORDINATE = re.compile(r"([A-Za-z0-9._-]+(?:#\d{1,9})?):(\d{1,9}):(\d{1,18})", re.ASCII)


def run_config(argv: Sequence[str], command: str = "run") -> RunConfig:
    """Raises UsageError or GuaranteeError: the flag, its value, what is allowed, and the fix.

    command: run, or preflight, which takes the same options.
    """
    given = run_parser(command).parse_strictly(argv)
    profile = runner_of(given)
    servers = required(given, "bootstrap_servers", "localhost:9092")
    streaming = streaming_of(given, profile)
    if streaming is None or streaming.topic_pattern is None:
        required(given, "topic", "payments")
    for topic in given.topic or ():
        if not _TOPIC.fullmatch(topic):
            hint = " Give --topic once for each topic." if "," in topic else ""
            raise UsageError(
                f"--topic={topic}: a topic's name is up to 249 letters, digits, dots, underscores"
                f" and hyphens.{hint}"
            )
    if given.group_id == "":
        raise UsageError("--group_id=: must not be empty. Give a name, or leave it out.")
    destination = destination_of(given)
    return RunConfig(
        bootstrap_servers=servers,
        topics=tuple(dict.fromkeys(given.topic or ())),
        adopt_topics=parse_adopted(given.adopt_topic, given.topic or ()),
        destination=destination.name,
        destination_options=destination_options(given),
        schema=load_schema(
            given.schema,
            dedup_key=given.dedup_key,
            event_time_field=given.event_time_field,
            amount_field=given.amount_field,
            currency_field=given.currency_field,
            epoch_unit=None
            if given.epoch_unit is None
            else one_of("epoch_unit", given.epoch_unit, list(EPOCH_UNITS)),
        ),
        dedup_horizon_us=parse_duration("dedup_horizon", given.dedup_horizon, least_us=_MINUTE_US),
        extra_retention_us=parse_duration("extra_retention", given.extra_retention),
        max_future_skew_us=parse_duration("max_future_skew", given.max_future_skew),
        idle_timeout_us=None
        if given.idle_timeout == NEVER
        else parse_duration("idle_timeout", given.idle_timeout, word=NEVER),
        dedup_layout=one_of("dedup_layout", given.dedup_layout, list(LAYOUTS)),
        shards=shards_of(given, streaming),
        start=_start(given),
        max_records_per_run=NO_TRANSACTIONS
        if streaming is not None
        else parse_whole(
            "max_records_per_run", _given_or(given.max_records_per_run, "1000000"), 1, 10**12
        ),
        max_record_bytes=_record_size(given.max_record_bytes, destination.max_record_bytes),
        unknown_fields=one_of("unknown_fields", given.unknown_fields, ["keep", "reject"]),
        on_data_loss=one_of("on_data_loss", given.on_data_loss, ["fail", "accept"]),
        max_rejected_rate=parse_share(
            "max_rejected_rate", _given_or(given.max_rejected_rate, "0.1")
        ),
        reject_records=parse_coordinates(given.reject_records),
        consumer_config=load_consumer_config(given.consumer_config, servers, given.group_id),
        json=given.json,
        log_format=one_of("log_format", given.log_format, FORMATS),
        beam_options=PipelineOptions(
            [*argv, *profile.arguments(vars(given))], runner=profile.beam_runner
        ),
        streaming=streaming,
        every_us=_every(given),
        state_dir=_state_dir(given),
        shards_given=given.shards is not None,
        runner=profile,
        workers_here=profile.in_one_process(vars(given)),
        seed=seed_table(given),
    )


def _given_or(text: str | None, default: str) -> str:
    """The parser has no default where it counts whether a flag was given (options/streaming.py)."""
    return default if text is None else text


def _state_dir(given: Namespace) -> str | None:
    """The folder of the ids between processes; None for none."""
    if given.state_dir == "":
        raise UsageError("--state_dir=: must be the path of a folder, or none.")
    if given.state_dir is not None and given.state_dir.lower() == NONE:
        return None
    if given.state_dir is not None:
        if _PATTERN.search(given.state_dir):
            raise UsageError(
                f"--state_dir={given.state_dir}: must not contain *, ? or [, which Beam's file"
                " systems read as patterns. Give another path, or none."
            )
        return str(given.state_dir)
    kind, _, path = str(given.destination).partition(":")
    return f"{path}.ids" if kind == "duckdb" and not _PATTERN.search(path) else None


def _every(given: Namespace) -> int | None:
    """Microseconds from one run to the next; None for a single one."""
    if given.every is None:
        return None
    if given.reject_records:
        raise UsageError(
            f"--every={given.every} with --reject_records: the records are rejected by the first"
            " run, and refused as read already by the next. Run once without --every, then without"
            " --reject_records."
        )
    return parse_duration("every", given.every, least_us=_SECOND_US)


def _start(given: Namespace) -> Start:
    """Where the first run begins. Raises UsageError."""
    path = given.start_offsets
    if path is None:
        return Start(EARLIEST) if given.start is None else parse_start(given.start)
    if given.start is not None:
        raise UsageError(
            f"--start={given.start} with --start_offsets={path}: both say where the first run"
            " begins. Leave one of them out."
        )
    if not path or _PATTERN.search(path):
        raise UsageError(
            f"--start_offsets={path}: must be the path of a checkpoint folder, or of a file of its"
            " offsets/, without *, ? or [, which Beam's file systems read as patterns."
        )
    return Start(OFFSETS, given=path.rstrip("/"))


def _record_size(text: str, most: int | None) -> int:
    size = parse_size("max_record_bytes", text)
    if most is not None and size > most:
        raise UsageError(
            f"--max_record_bytes={text}: BigQuery takes at most {most >> 20}MiB of one record in a"
            " row. Use --max_record_bytes=8MiB or less."
        )
    return size


def parse_start(text: str) -> Start:
    """`earliest`, `latest` or `timestamp:` with a time in text, as a TIMESTAMP field takes it.

    The time is rounded up to Kafka's milliseconds. Raises UsageError.
    """
    if text in (EARLIEST, LATEST):
        return Start(text, given=text)
    kind, _, time = text.partition(":")
    if kind == TIMESTAMP:
        try:
            moment = -(-parse_timestamp(time) // 1000)
        except (NotATime, TimeOutOfRange):
            moment = -1
        # Kafka reads negative timestamps as special values: -1 means latest.
        if moment >= 0:
            return Start(TIMESTAMP, moment, given=text)
    raise UsageError(
        f"--start={text}: allowed are earliest, latest and timestamp:2026-01-01T00:00:00Z (RFC"
        " 3339, from 1970 on)."
    )


def parse_adopted(given: Sequence[str] | None, topics: Sequence[str]) -> tuple[AdoptTopic, ...]:
    """NAME@ID, or NAME#GENERATION@ID, of each --adopt_topic. Raises UsageError.

    topics: those of the run.
    """
    found = []
    for text in given or ():
        match = _ADOPTED.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--adopt_topic={text}: must be NAME@ID, the topic's name and Kafka's id of it, as"
                " the refusal of a run prints it."
            )
        if match[1] not in topics:
            raise UsageError(
                f"--adopt_topic={text}: the run does not read {match[1]}. Name it with"
                f" --topic={match[1]} too, or leave --adopt_topic out."
            )
        found.append(AdoptTopic(match[1], match[3], int(match[2]) if match[2] else None))
    return tuple(dict.fromkeys(found))


def parse_coordinates(text: str | None) -> dict[TopicPartition, tuple[int, ...]]:
    """topic:partition:offset,... as offsets per (topic, partition). Raises UsageError."""
    found: dict[TopicPartition, tuple[int, ...]] = {}
    for part in (text or "").split(",") if text else []:
        match = _COORDINATE.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"--reject_records={part}: must be topic:partition:offset, several separated by"
                " commas, as the message said it."
            )
        position = match[1], int(match[2])
        found[position] = (*found.get(position, ()), int(match[3]))
    return found
