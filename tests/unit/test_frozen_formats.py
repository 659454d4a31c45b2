"""What outlives a process: changing any of it needs a migration, so it is written down here byte by
byte.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from apache_beam import Pipeline
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.graph import BoundedRun, build
from pipeline.options.schema_file import load_schema
from pipeline.run.settings import settings_of
from tests.support.in_memory_kafka import config
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.deduplicate.deduplicate_transactions import LAYOUTS
from transforms.deduplicate.outcome import RowShape
from transforms.deduplicate.per_key import DeduplicatePerKey
from transforms.deduplicate.settings import DedupSettings
from transforms.deduplicate.shard_state import (
    ShardHead,
    build_index,
    decode_groups,
    decode_head,
    encode_groups,
    encode_head,
    new_head,
)
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.destinations.contract.run_ledger import (
    PartitionProgress,
    RunRecord,
    TableProgress,
    clusters_of,
    other_clusters,
)
from transforms.destinations.contract.run_tail import with_landmarks
from transforms.destinations.contract.stop_mark import decode_marks, encode_mark
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.coordinates import coordinate_hashes, coordinate_sum
from transforms.model.fingerprints import fingerprints_of, shards_of
from transforms.model.rejected_counts import RejectedCount
from transforms.model.run_report import (
    PartitionWritten,
    ReaderReport,
    ShardReport,
    StreamWritten,
    decode_report,
    encode_report,
)
from transforms.model.topic_generations import (
    current_generations,
    kafka_topic,
    next_generation,
)
from transforms.read.partition_reader import PartitionRange

HOUR_US = 3_600_000_000
COORDINATES = ["574301544a518bf6", "f7febbf48faca167", "09d9ff54ba9a4959"]
"""Computed with Python's integers from the published splitmix64, not with the code under test."""
LABELS = {
    "sharded": [
        "Plan",
        "ReadRecords",
        "ReadRecords/ReadRange",
        "ReadRecords/ReadRange/ParDo(ReadRange)",
        "DecodeRecords",
        "DeduplicateTransactions",
        "DeduplicateTransactions/Sharded",
        "WriteRows",
        "CollectReports",
        "CollectReports/Flatten",
        "CollectReports/OneKey",
        "CollectReports/Group",
        "CollectReports/Save",
    ],
}
LABELS["per_key"] = [
    *LABELS["sharded"][:6],
    "DeduplicateTransactions/SplitByKey",
    "DeduplicateTransactions/PerKey",
    *LABELS["sharded"][7:],
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_step_labels(layout: str) -> None:
    shape = RowShape(0, "amount", "currency")
    destination = DuckDBDestination("never-opened.duckdb")
    run = BoundedRun(
        "run", [PartitionRange("payments", 0, 0, 1)], {"bootstrap.servers": "never-opened:1"},
        Decoder(load_schema(None), unknown_fields="keep", max_record_bytes=1), {}, TimeLimits(0, 0),
        DedupSettings("job", 2, HOUR_US, 0, False, shape, None), layout, destination,
    )  # fmt: skip
    pipeline = Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    build(pipeline, run)
    names = {
        transform.unique_name
        for transform in pipeline.to_runner_api().components.transforms.values()
    }
    # Beam's own steps inside (Create, WithKeys) are Beam's business.
    assert [label for label in LABELS[layout] if label not in names] == []
    ours = {
        name
        for name in names
        if name.split("/")[0] != "Plan"
        and "/OneKey/" not in name
        and "AppliedPTransform" not in name
    }
    assert ours == set(LABELS[layout]) - {"Plan"}


def test_state_cells_and_timers() -> None:
    from apache_beam.transforms.userstate import get_dofn_specs

    settings = DedupSettings("job", 2, HOUR_US, 0, True, RowShape(0, None, None), None)
    for dofn, cells in (
        (DeduplicateSharded(settings), {"head", *(f"ids_{slot:02}" for slot in range(16))}),
        (DeduplicatePerKey(settings), {"bucket"}),
    ):
        state, timers = get_dofn_specs(dofn)
        assert {spec.name for spec in state} == cells
        assert {spec.name for spec in timers} == {"ts-expiry"}, (
            "ts- is Beam's prefix of a timer family"
        )


def test_the_head_of_a_shard() -> None:
    head = ShardHead(token=bytes(range(16)), expired_through=-2, slot_width=5, live={29_000_000: 3})
    encoded = encode_head(head)
    assert encoded.hex() == "94c410000102030405060708090a0b0c0d0e0ffe0581ce01ba814003"
    assert decode_head(encoded) == head
    assert new_head(HOUR_US) == ShardHead(b"", None, 5, {})
    assert new_head(1) == ShardHead(b"", None, 1, {})


def test_the_groups_of_a_slot() -> None:
    head = new_head(HOUR_US)
    fingerprints = fingerprints_of(pa.array(["a", "b", "c"]))
    blobs = encode_groups(head, fingerprints, np.array([7, -3, 7], dtype=np.int32))
    assert {slot: blob.hex() for slot, blob in blobs.items()} == {
        1: "00000007" + "00000002" + "ca978112ca1bbdcafac2" + "2e7d2c03a9507ae265ec",
        15: "fffffffd" + "00000001" + "3e23e8160039594a3389",
    }
    assert [(bucket, rows.shape) for bucket, rows in decode_groups(blobs[1])] == [(7, (2, 10))]
    assert build_index(-3, blobs.values()).buckets_of(fingerprints).tolist() == [
        7,
        np.iinfo(np.int32).min,
        7,
    ]


def test_shards_are_hash_ranges() -> None:
    fingerprints = np.zeros((4, 10), dtype=np.uint8)
    fingerprints[:, 0] = [0, 127, 128, 255]
    assert shards_of(fingerprints, 2).tolist() == [0, 0, 1, 1]
    assert shards_of(fingerprints, 16).tolist() == [0, 7, 8, 15]


def test_coordinate_hashes() -> None:
    found = coordinate_hashes("payments", 3, np.array([0, 1, 1 << 40]))
    assert [f"{number:016x}" for number in found.tolist()] == COORDINATES
    assert (
        coordinate_sum("payments", 3, np.array([0, 1, 1 << 40]))
        == sum(int(text, 16) for text in COORDINATES) % 2**64
    )
    assert coordinate_sum("payments", 3, np.array([], dtype=np.int64)) == 0


def test_reports() -> None:
    shard = ShardReport(
        2,
        [StreamWritten("t", "s", 4)],
        [PartitionWritten("p", 0, "t", 4, 1 << 63, -5)],
        b"ipc",
        {7: -1},
        [RejectedCount("p", "late", "why", 4, 0, 3, b"{}")],
        [bytes(18)],
    )
    reader = ReaderReport("p", 0, 1, 9, 5, 1 << 63, [(2, 4)])
    assert msgspec.msgpack.decode(encode_report(shard)) == {
        "type": "shard",
        "shard": 2,
        "streams": [{"table": "t", "stream": "s", "rows": 4}],
        "partitions": [
            {
                "topic": "p",
                "partition": 0,
                "table": "t",
                "records": 4,
                "coordinate_hash": 1 << 63,
                "highest_event_time_us": -5,
            }
        ],
        "totals": b"ipc",
        "live_ids": {7: -1},
        "rejected": [
            {
                "topic": "p",
                "reason": "late",
                "detail": "why",
                "records": 4,
                "partition": 0,
                "offset": 3,
                "value": b"{}",
            }
        ],
        "ids": [bytes(18)],
    }
    assert msgspec.msgpack.decode(encode_report(reader)) == {
        "type": "reader",
        "topic": "p",
        "partition": 0,
        "from_offset": 1,
        "to_offset": 9,
        "records": 5,
        "coordinate_hash": 1 << 63,
        "gaps": [[2, 4]],
    }
    assert decode_report(encode_report(shard)) == shard
    assert decode_report(encode_report(reader)) == reader


def test_the_ledger() -> None:
    assert RunRecord.__struct_fields__ == (
        "run_id", "predecessor", "status", "plan_time", "cluster_id", "partitions", "tables",
        "lowest_watermark", "live_ids", "state_bytes", "settings", "repairs",
    )  # fmt: skip
    assert PartitionProgress.__struct_fields__ == (
        "topic", "partition", "topic_id", "from_offset", "to_offset", "records", "gap_offsets",
        "coordinate_hash", "start_watermark", "watermark", "position_since",
    )  # fmt: skip
    assert TableProgress.__struct_fields__ == ("table", "rows", "commit_groups")
    assert list(settings_of(config("x"))) == [
        "topics", "schema", "dedup_key", "event_time_field", "amount_column",
        "currency_column",
        "dedup_horizon_us", "extra_retention_us", "max_future_skew_us", "decoder_version",
        "shards", "dedup_layout", "epoch_units",
    ]  # fmt: skip
    assert settings_of(config("x"))["decoder_version"] == 2


def test_the_landmarks_of_a_record_are_frozen() -> None:
    part = PartitionProgress(
        topic="p", partition=0, topic_id=None, from_offset=0, to_offset=1, records=1, gap_offsets=0,
        coordinate_hash=0, start_watermark=None, watermark=7, position_since=0,
    )  # fmt: skip
    first = RunRecord(
        run_id="run-1", predecessor=None, status="COMMITTED", plan_time=5, cluster_id=None,
        partitions=[part], tables=[TableProgress(table="payment_transactions", rows=1,
        commit_groups=[])], lowest_watermark=None, live_ids=1, state_bytes=11,
        settings={"dedup_horizon_us": 1},
    )  # fmt: skip
    second = msgspec.structs.replace(
        first, run_id="run-2", predecessor="run-1", plan_time=9, settings={"dedup_horizon_us": 2}
    )
    third = msgspec.structs.replace(second, run_id="run-3", predecessor="run-2", plan_time=8)
    assert with_landmarks(third, [first, second]).settings == {
        "dedup_horizon_us": 2,
        "landmarks": [["run-1", 5], ["run-2", 9]],
    }


def test_a_stop_mark_of_an_earlier_version_is_written_as_it_was_read() -> None:
    """A mark is taken away by its text. One that stays would end the job at the next error of its
    subject, without a second look.
    """
    text = '{"generation":3,"shard":null,"subject":"payments:0","reason":"why","token":"a"}'
    (mark,) = decode_marks([text], 3)
    assert encode_mark(mark) == text


def test_the_clusters_of_topics() -> None:
    """Older records have none: all of their topics are in the record's cluster."""
    part = {
        "partition": 0, "topic_id": None, "from_offset": 0, "to_offset": 0, "records": 0,
        "gap_offsets": 0, "coordinate_hash": 0, "start_watermark": None, "watermark": None,
        "position_since": 0,
    }  # fmt: skip
    parts = [PartitionProgress(topic=topic, **part) for topic in ("p", "p#2")]
    record = RunRecord(
        run_id="r", predecessor=None, status="COMMITTED", plan_time=0, cluster_id="A",
        partitions=parts, tables=[], lowest_watermark=None, live_ids=0, state_bytes=0, settings={},
    )  # fmt: skip
    assert clusters_of(record) == {"p": "A", "p#2": "A"}
    settings = other_clusters(record, "B")
    assert settings == {"topic_clusters": {"p": "A", "p#2": "A"}}
    later = msgspec.structs.replace(record, cluster_id="B", settings=settings)
    assert clusters_of(later) == {"p": "A", "p#2": "A"}
    assert other_clusters(later, "A") == {}


def test_the_generations_of_a_topic() -> None:
    assert next_generation("payments") == "payments#2"
    assert next_generation("payments#9") == "payments#10"
    assert {kafka_topic(name) for name in ("payments", "payments#10")} == {"payments"}
    assert current_generations(["payments#9", "payments#10", "payments", "q"]) == {
        "payments": "payments#10",
        "q": "q",
    }
