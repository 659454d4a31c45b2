"""The first run begins where a job of Spark Structured Streaming stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.config import OFFSETS, RunConfig, Start
from pipeline.options.run_config import run_config
from pipeline.run.command import run_command
from pipeline.run.spark_checkpoint import OldJob, read_checkpoint
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
)
from tests.support.seeded import checkpoint
from tests.support.whole_runs import failures, ids
from transforms.destinations.contract.run_ledger import GENESIS
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, UsageError

WATERMARK_US = NOW_US - HOUR_US
PLACE = (
    "--bootstrap_servers=localhost:9092",
    "--topic=payments",
    "--destination=duckdb:payments.duckdb",
)


def genesis_of(path: Path) -> Any:
    with open_destination(f"duckdb:{path}") as destination:
        (record,) = [one for one in destination.runs.read() if one.run_id == GENESIS]
        return record


def from_spark(path: Path, start: Start, **changes: Any) -> RunConfig:
    return config(path, start=start, **changes)


def three(kafka: InMemoryKafka) -> None:
    """Three partitions with four payments each."""
    kafka.create("payments", 3)
    for partition in range(3):
        for offset in range(4):
            kafka.send("payments", partition, payment(f"{partition}-{offset}"))


def test_it_begins_behind_the_newest_batch_that_is_committed(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    three(kafka)
    start = checkpoint(
        tmp_path / "old",
        [
            ({"payments": {"0": 1}}, 0, True),
            ({"payments": {"0": 3, "1": 4}}, WATERMARK_US - MINUTE_US, True),
            # It may be in the old job's table or not, and would have been run again.
            ({"payments": {"0": 4, "1": 4}}, WATERMARK_US, False),
        ],
    )
    run(from_spark(path, start))
    # Partition 2 has come since: it begins at its beginning.
    assert ids(path) == ["0-3", "2-0", "2-1", "2-2", "2-3"]
    assert failures(path) == []
    record = genesis_of(path)
    assert {part.partition: part.to_offset for part in record.partitions} == {0: 3, 1: 4, 2: 0}
    assert record.settings["old_job"] == {
        "path": str(tmp_path / "old"),
        "batch": 1,
        "watermark_us": WATERMARK_US,
    }


def test_lateness_goes_on_and_the_first_cold_start_has_a_bound(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("late", WATERMARK_US - 1), payment("edge", WATERMARK_US))
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 0}}, WATERMARK_US, True)])
    (record,) = run(from_spark(path, start))
    assert ids(path) == ["edge"]
    assert table(path, "SELECT reason, kafka_offset FROM rejected_records") == [("late", 0)]
    assert record.lowest_watermark == WATERMARK_US
    assert {part.watermark for part in record.partitions} == {WATERMARK_US}
    assert failures(path) == []
    # A partition that is found later judges by it, too.
    kafka.topics["payments"].partitions.append(type(kafka.topics["payments"].partitions[0])())
    kafka.send("payments", 2, payment("late too", WATERMARK_US - 1))
    run(config(path))
    assert ids(path) == ["edge"]
    assert failures(path) == []


def test_zero_is_no_watermark(kafka: InMemoryKafka, path: Path, tmp_path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("old", NOW_US - 20 * HOUR_US))
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 0}}, 0, True)])
    (record,) = run(from_spark(path, start))
    assert ids(path) == ["old"]
    assert record.lowest_watermark is None
    assert failures(path) == []


def test_a_watermark_that_was_altered_in_genesis_is_found_out(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    three(kafka)
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 1}}, WATERMARK_US, True)])
    run(from_spark(path, start))
    table(
        path,
        "UPDATE pipeline_runs SET settings = json_merge_patch(settings,"
        f""" '{{"old_job": {{"watermark_us": {WATERMARK_US - 1}}}}}') WHERE run_id = '{GENESIS}'""",
    )
    (failed,) = failures(path)
    assert failed.name == "the ledger is one chain"


def test_later_it_has_no_effect_which_is_said(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(kafka)
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 4, "1": 4, "2": 3}}, 0, True)])
    run_command(from_spark(path, start), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["start_ignored"] is None
    gone = Start(OFFSETS, given=str(tmp_path / "gone"))
    run_command(from_spark(path, gone, json=False), lambda: NOW_US)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"--start_offsets={tmp_path / 'gone'} is for the first run only")
    assert ids(path) == ["2-3"]


def test_one_file_of_the_offsets(kafka: InMemoryKafka, path: Path, tmp_path: Path) -> None:
    three(kafka)
    offsets = {"payments": {"0": 4, "1": 4, "2": 2}}
    checkpoint(tmp_path / "old", [(offsets, 0, True), (offsets, 0, False)])
    run(from_spark(path, Start(OFFSETS, given=str(tmp_path / "old" / "offsets" / "0"))))
    assert ids(path) == ["2-2", "2-3"]
    uncommitted = str(tmp_path / "old" / "offsets" / "1")
    with pytest.raises(GuaranteeError, match=r"batch 1 is not committed.*newest that is, is 0"):
        read_checkpoint(uncommitted)
    alone = tmp_path / "5"
    alone.write_text((tmp_path / "old" / "offsets" / "0").read_text())
    assert read_checkpoint(str(alone)) == OldJob(5, {"payments": {0: 4, 1: 4, 2: 2}}, None)


def test_deleted_offsets_are_a_loss_as_ever(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    three(kafka)
    kafka.topics["payments"].partitions[0].deleted = 3
    start = checkpoint(tmp_path / "old", [({"payments": {"0": 1, "1": 4, "2": 4}}, 0, True)])
    with pytest.raises(GuaranteeError, match="offsets 1 to 2 were deleted before they were read"):
        run(from_spark(path, start))
    assert not path.exists()
    run(from_spark(path, start, on_data_loss="accept"))
    assert ids(path) == ["0-3"]
    assert table(path, "SELECT first_offset, last_offset, cause FROM offset_gaps") == [
        (1, 2, "deleted")
    ]
    assert failures(path) == []


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ({"payments": {"0": 5}}, "up to offset 5, but the log ends at 4"),
        ({"payments": {"3": 0}}, "partition 3 of topic payments, which has 3"),
        ({"others": {"0": 1}}, r"has the topic\(s\) others, and not payments"),
        ({"payments": {"0": 1}, "more": {"0": 1}}, "the old job has read more too"),
    ],
)
def test_offsets_that_do_not_fit_kafka_refuse_the_run(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, offsets: Any, words: str
) -> None:
    three(kafka)
    start = checkpoint(tmp_path / "old", [(offsets, 0, True)])
    with pytest.raises(GuaranteeError, match=words):
        run(from_spark(path, start))
    assert not path.exists()


def no_commit(folder: Path) -> None:
    (folder / "commits" / "0").unlink()


def no_offsets(folder: Path) -> None:
    (folder / "offsets" / "0").unlink()


def written(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "offsets" / "0").write_text(text)

    return change


MARK = '{"batchWatermarkMs":0}'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_commit, "no batch of the job is committed"),
        (no_offsets, "batch 0 is committed, but offsets/0 is not there"),
        (written(f'v2\n{MARK}\n{{"payments":{{"0":1}}}}'), "begins with 'v2', and only v1"),
        (written(f'v1\n{MARK}\n{{"a":{{"0":1}}}}\n{{"b":{{"0":1}}}}'), "has 2 sources"),
        (written(f"v1\n{MARK}\n-"), "has no offset of a source"),
        (written(f"v1\n{MARK}"), "has no offset of a source"),
        (written(f'v1\n{MARK}\n{{"logOffset":7}}'), "has no offsets of Kafka"),
        (written(f'v1\n{MARK}\n{{"payments":{{"0":-2}}}}'), "has no offsets of Kafka"),
        (written('v1\n{"batchWat'), "is no JSON"),
        (written("v1\n{}"), "batchWatermarkMs is None"),
        (written("v1"), "ends behind its version"),
        (written(""), "is no text of Spark's"),
    ],
)
def test_a_folder_that_says_nothing_sure_is_refused(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "old"
    checkpoint(folder, [({"payments": {"0": 1}}, 0, True)])
    change(folder)
    with pytest.raises(GuaranteeError, match=words) as refused:
        read_checkpoint(str(folder))
    assert refused.value.message.startswith(f"--start_offsets={folder}: ")


def test_a_path_with_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuaranteeError, match="neither a checkpoint folder"):
        read_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(GuaranteeError, match=r"--start_offsets=none://a/b: it cannot be read"):
        read_checkpoint("none://a/b")


def test_both_flags_together_are_refused() -> None:
    with pytest.raises(UsageError, match="both say where the first run begins"):
        run_config([*PLACE, "--start=latest", "--start_offsets=old"])
    with pytest.raises(UsageError, match="without \\*"):
        run_config([*PLACE, "--start_offsets=old/*"])
    assert run_config([*PLACE, "--start_offsets=old/"]).start == Start(OFFSETS, given="old")
