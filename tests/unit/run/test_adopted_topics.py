"""A topic that moved, or was created again, goes on as a new generation of the same name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.options.config import AdoptTopic, RunConfig
from pipeline.run.command import run_command
from pipeline.run.notes import ForgottenTopic, Notes
from tests.bigquery_stand_in import BigQueryStandIn
from tests.faults.dying import die_after, die_while_committing
from tests.support.bigquery import bigquery, forget_streams
from tests.support.bigquery import failures as bigquery_failures
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
    run,
    table,
)
from tests.support.whole_runs import COPIES, IDS, expire, failures
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    PREPARED,
    RunRecord,
    clusters_of,
)
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError

ROWS = """SELECT kafka_topic, kafka_partition, kafka_offset, transaction_id
FROM payment_transactions ORDER BY ALL"""
REJECTED = "SELECT reason, kafka_topic, kafka_partition, kafka_offset FROM rejected_records"
RUNS = "SELECT run_id FROM pipeline_runs"
ACCEPTED: dict[str, Any] = {
    "adopt_topics": (AdoptTopic("payments", "new"),),
    "on_data_loss": "accept",
}


def adopting(path: Path, topic_id: str = "new", **options: Any) -> RunConfig:
    flag = AdoptTopic("payments", topic_id, options.pop("generation", None))
    return config(path, **{"adopt_topics": (flag,), "on_data_loss": "accept", **options})


def records(path: Path) -> list[RunRecord]:
    with DuckDBDestination(str(path)) as destination:
        return destination.runs.read()


def noted(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The notes of `check`, by name, with their proof."""
    with DuckDBDestination(str(path)) as destination:
        return {
            result.name: list(result.proof)
            for result in check(destination, None, 100.0, 400)
            if result.status == "noted"
        }


def recreate(kafka: InMemoryKafka, *values: bytes, topic_id: str = "new") -> None:
    kafka.create("payments", 1, topic_id=topic_id)
    kafka.send("payments", 0, *values)


@pytest.fixture
def moved(kafka: InMemoryKafka, path: Path) -> InMemoryKafka:
    """Two partitions were read up to 2 and 1; then the topic was created again with a copy."""
    kafka.create("payments", 2, topic_id="old")
    kafka.send("payments", 0, payment("a", NOW_US - 10 * MINUTE_US), payment("b"))
    kafka.send("payments", 1, payment("c", NOW_US - 20 * MINUTE_US))
    run(config(path))
    recreate(kafka, payment("b"), payment("d"))
    return kafka


# What goes on, and how.


def test_an_adopted_topic_goes_on_under_a_name_that_keeps_its_coordinates_unique(
    moved: InMemoryKafka, path: Path
) -> None:
    (record,) = run(adopting(path))
    assert table(path, ROWS) == [
        ("payments", 0, 0, "a"),
        ("payments", 0, 1, "b"),
        ("payments", 1, 0, "c"),
        ("payments#2", 0, 1, "d"),
    ]
    assert table(path, COPIES) == [("b",)]
    new = next(part for part in record.partitions if part.topic == "payments#2")
    assert (new.topic_id, new.from_offset, new.to_offset) == ("new", 0, 2)
    assert new.start_watermark == record.lowest_watermark == NOW_US - HOUR_US - 20 * MINUTE_US
    assert failures(path) == []


def test_the_flag_is_needed_once_and_harmless_later(moved: InMemoryKafka, path: Path) -> None:
    run(adopting(path))
    moved.send("payments", 0, payment("e"))
    run(config(path))
    moved.send("payments", 0, payment("f"))
    run(adopting(path, on_data_loss="fail"))
    assert ("payments#2", 0, 2, "e") in table(path, ROWS)
    assert ("payments#2", 0, 3, "f") in table(path, ROWS)
    assert failures(path) == []


def test_a_flag_that_was_left_over_adopts_nothing_when_the_topic_is_created_again(
    moved: InMemoryKafka, path: Path
) -> None:
    run(adopting(path))
    recreate(moved, payment("e"), topic_id="newer")
    with pytest.raises(GuaranteeError, match="--adopt_topic=payments@newer --on_data_loss=accept"):
        run(adopting(path))
    run(adopting(path, "newer"))
    assert ("payments#3", 0, 0, "e") in table(path, ROWS)
    run(adopting(path))
    assert len(noted(path)["adopted topics"]) == 2
    assert failures(path) == []


def test_an_adoption_into_an_empty_topic_is_kept(moved: InMemoryKafka, path: Path) -> None:
    recreate(moved)
    notes = Notes()
    (record,) = run(adopting(path), notes=notes)
    assert (record.status, record.tables) == (COMMITTED, [])
    assert [one.generation for one in notes.adopted] == ["payments#2"]
    assert run(config(path)) == []
    moved.send("payments", 0, payment("d"))
    run(config(path))
    assert ("payments#2", 0, 0, "d") in table(path, ROWS)
    assert failures(path) == []


def test_it_begins_at_the_earliest_offset_whatever_start_says(
    moved: InMemoryKafka, path: Path
) -> None:
    from pipeline.options.config import LATEST, Start

    moved.topics["payments"].partitions[0].deleted = 1
    run(adopting(path, start=Start(LATEST)))
    assert table(path, ROWS)[-1] == ("payments#2", 0, 1, "d")
    assert table(path, "SELECT * FROM offset_gaps") == []
    assert failures(path) == []


def test_before_anything_was_read_a_topic_can_be_adopted_too(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1, topic_id="old")
    assert run(config(path)) == []
    recreate(kafka, payment("a"))
    (record,) = run(adopting(path))
    assert {part.start_watermark for part in record.partitions} == {None}
    assert table(path, ROWS) == [("payments#2", 0, 0, "a")]
    assert failures(path) == []


# Watermarks, and what they need to know.


def test_an_older_generation_holds_nothing_back(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("far behind", NOW_US - 100 * HOUR_US))
    run(config(path))
    recreate(kafka, payment("a"))
    run(adopting(path))
    kafka.create("refunds", 1)
    kafka.send("refunds", 0, payment("far behind", NOW_US - 100 * HOUR_US))
    (record,) = run(config(path, topics=("refunds",)))
    assert record.lowest_watermark == NOW_US - HOUR_US
    assert table(path, REJECTED) == [("late", "refunds", 0, 0)]
    assert failures(path) == []


def test_a_second_topic_that_is_named_with_an_adoption_starts_where_the_old_one_was(
    moved: InMemoryKafka, path: Path
) -> None:
    moved.create("refunds", 1)
    moved.send("refunds", 0, payment("a", NOW_US - 10 * MINUTE_US), payment("z", NOW_US - HOUR_US))
    (record,) = run(adopting(path, topics=("payments", "refunds")))
    starts = {part.start_watermark for part in record.partitions if part.topic != "payments"}
    assert starts == {NOW_US - HOUR_US - 20 * MINUTE_US}
    assert sorted(table(path, COPIES)) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_horizon_that_grows_with_the_adoption_loads_what_it_promises(
    moved: InMemoryKafka, path: Path
) -> None:
    recreate(moved, payment("a", NOW_US - 30 * MINUTE_US))
    (record,) = run(adopting(path, dedup_horizon_us=3 * HOUR_US))
    assert record.lowest_watermark == NOW_US - 20 * MINUTE_US - 3 * HOUR_US
    assert table(path, COPIES) == [("a",)]
    assert failures(path) == []


def test_a_partition_that_an_adopted_topic_gets_later_begins_at_offset_0(
    moved: InMemoryKafka, path: Path
) -> None:
    run(adopting(path))
    moved.topics["payments"].partitions.append(Partition())
    moved.send("payments", 1, payment("x"), payment("y"))
    moved.topics["payments"].partitions[1].deleted = 1
    with pytest.raises(GuaranteeError, match="payments#2 partition 1: offsets 0 to 0 were deleted"):
        run(config(path))
    run(config(path, on_data_loss="accept"))
    assert table(path, "SELECT kafka_topic, kafka_partition, first_offset FROM offset_gaps") == [
        ("payments#2", 1, 0)
    ]
    assert failures(path) == []


# What is refused.


def refused(settings: RunConfig, path: Path) -> str:
    before = table(path, RUNS)
    with pytest.raises(GuaranteeError) as error:
        run(settings)
    assert table(path, RUNS) == before
    return error.value.message


def test_the_loss_has_to_be_accepted_and_is_said_by_partition(
    moved: InMemoryKafka, path: Path
) -> None:
    message = refused(adopting(path, on_data_loss="fail"), path)
    assert "read up to offset 2 of partition 0, 1 of partition 1" in message
    assert "--on_data_loss=accept goes on with the new topic" in message and "payments#2" in message


def test_the_id_must_be_that_of_the_topic_that_is_there(moved: InMemoryKafka, path: Path) -> None:
    assert "use --adopt_topic=payments@new." in refused(adopting(path, "other"), path)
    moved.topics["payments"].topic_id = None
    assert "tells no id" in refused(adopting(path, "new"), path)


def test_a_topic_that_has_not_moved_is_not_adopted(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1, topic_id="old")
    run(config(path))
    assert "nothing to adopt" in refused(adopting(path, "other"), path)
    assert run(adopting(path, "old")) == []


def test_a_topic_that_was_never_read_is_not_adopted(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1, topic_id="new")
    kafka.create("refunds", 1)
    run(config(path, topics=("refunds",)))
    assert "nothing to go on from" in refused(adopting(path, **BOTH), path)


def test_a_first_run_adopts_nothing(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1, topic_id="new")
    with pytest.raises(GuaranteeError, match="has read nothing of a topic payments yet"):
        run(adopting(path))
    assert not path.exists()


def test_what_the_refusal_of_a_recreated_topic_prints_is_what_works(
    moved: InMemoryKafka, path: Path
) -> None:
    message = refused(config(path), path)
    assert "`run --adopt_topic=payments@new --on_data_loss=accept` goes on" in message


def test_a_recreated_topic_without_a_known_id_is_offered_too(
    kafka: InMemoryKafka, path: Path
) -> None:
    """No id was known, so the missing partition, or the end of the log, is the first sign."""
    kafka.create("payments", 2)
    kafka.topics["payments"].topic_id = None
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    recreate(kafka, payment("c"))
    assert "partition(s) 1 were read" in (message := refused(config(path), path))
    assert "--adopt_topic=payments@new" in message
    recreate(kafka)
    kafka.topics["payments"].partitions.append(Partition())
    assert "the log ends at 0" in (message := refused(config(path), path))
    assert "--adopt_topic=payments@new" in message
    kafka.send("payments", 0, payment("c"))
    run(adopting(path))
    assert table(path, ROWS)[-1] == ("payments#2", 0, 0, "c")
    assert failures(path) == []


def test_a_log_that_was_truncated_is_no_new_topic(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"))
    run(config(path))
    log = kafka.topics["payments"].partitions[0]
    del log.records[1:], log.timestamps[1:], log.timestamp_types[1:]
    message = refused(config(path), path)
    assert "the log ends at 1" in message and "--adopt_topic" not in message
    message = refused(adopting(path, "id of payments"), path)
    assert "the log ends at 1" in message


# A topic that moves back.


def test_a_topic_that_has_moved_back_needs_a_flag_with_the_generation(
    moved: InMemoryKafka, path: Path
) -> None:
    """Its id is known, so a flag that was left over from the first move looks the same."""
    old = moved.topics["payments"]
    run(adopting(path))
    recreate(moved, payment("e"), topic_id="newer")
    run(adopting(path, "newer"))
    moved.topics["payments"] = old
    old.partitions[0].records.append(payment("f"))
    assert "--adopt_topic=payments#4@new --on_data_loss=accept" in refused(config(path), path)
    assert "--adopt_topic=payments#4@new" in refused(adopting(path), path)
    assert "--adopt_topic=payments#4@new" in refused(adopting(path, generation=3), path)
    old.partitions[0].timestamps.append(NOW_US // 1000)
    old.partitions[0].timestamp_types.append(0)
    run(adopting(path, generation=4))
    assert table(path, ROWS)[-1] == ("payments#4", 0, 2, "f")
    assert run(adopting(path, generation=4)) == []
    assert failures(path) == []


# Clusters.


@pytest.fixture
def migrated(kafka: InMemoryKafka, path: Path) -> InMemoryKafka:
    """Two topics of cluster-1 were read; both are in cluster-2 now, with other ids."""
    for topic in ("payments", "refunds"):
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment(topic))
    run(config(path, topics=("payments", "refunds")))
    kafka.cluster = "cluster-2"
    for topic in ("payments", "refunds"):
        kafka.create(topic, 1, topic_id=f"new {topic}")
        kafka.send(topic, 0, payment(topic), payment(f"new {topic}"))
    return kafka


BOTH = {"topics": ("payments", "refunds")}
FLAGS = (AdoptTopic("payments", "new payments"), AdoptTopic("refunds", "new refunds"))


def test_the_refusal_of_another_cluster_prints_the_flag_of_each_topic(
    migrated: InMemoryKafka, path: Path
) -> None:
    message = refused(config(path, **BOTH), path)
    assert "cluster-2, but this destination was filled from cluster-1" in message
    assert (
        "`run --adopt_topic=payments@new payments --adopt_topic=refunds@new refunds"
        " --on_data_loss=accept`"
    ) in message
    run(config(path, **BOTH, adopt_topics=FLAGS, on_data_loss="accept"))
    assert [row[0] for row in table(path, IDS)] == [
        "new payments", "new refunds", "payments", "refunds",
    ]  # fmt: skip
    assert [row[0] for row in table(path, COPIES)] == ["payments", "refunds"]
    assert failures(path) == []


def test_a_cluster_that_was_copied_has_the_same_topic_ids(kafka: InMemoryKafka, path: Path) -> None:
    """The id is known, so a flag that was left over looks the same: it names the generation."""
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.cluster = "cluster-2"
    assert "--adopt_topic=payments#2@old" in refused(config(path), path)
    assert "--adopt_topic=payments#2@old" in refused(adopting(path, "old"), path)
    run(adopting(path, "old", generation=2))
    assert table(path, COPIES) == [("a",)]
    assert run(adopting(path, "old", generation=2)) == []
    assert failures(path) == []


def test_topics_may_move_one_after_the_other(migrated: InMemoryKafka, path: Path) -> None:
    """Until the second one has moved, each run reads from the cluster of the topics it names."""
    run(config(path, adopt_topics=FLAGS[:1], on_data_loss="accept"), notes=(notes := Notes()))
    (forgotten,) = notes.forgotten
    assert forgotten.topic == "refunds" and "cluster-1" in str(forgotten.problem)
    assert clusters_of(records(path)[-1]) == {
        "payments": "cluster-1", "payments#2": "cluster-2", "refunds": "cluster-1",
    }  # fmt: skip
    assert "payments" not in refused(config(path, **BOTH), path).partition("--adopt_topic")[2]
    migrated.cluster = "cluster-1"
    migrated.create("refunds", 1)
    migrated.send("refunds", 0, payment("refunds"), payment("one more"))
    run(config(path, topics=("refunds",)))
    assert clusters_of(records(path)[-1])["payments#2"] == "cluster-2"
    assert failures(path) == []
    migrated.cluster = "cluster-2"
    migrated.send("payments", 0, payment("last"))
    run(config(path))
    assert ("last",) in table(path, IDS) and ("one more",) in table(path, IDS)
    assert failures(path) == []


def test_a_topic_that_is_new_must_be_where_another_one_is(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.cluster = "cluster-2"
    kafka.create("refunds", 1)
    assert "none of its topics is there" in refused(config(path, topics=("refunds",)), path)
    recreate(kafka, payment("b"))
    run(adopting(path, **BOTH))
    assert failures(path) == []


def test_the_group_shows_current_generations_of_the_cluster_that_was_read(
    migrated: InMemoryKafka, path: Path
) -> None:
    migrated.committed.clear()
    run(config(path, adopt_topics=FLAGS[:1], on_data_loss="accept"))
    assert migrated.committed == {("payments", 0): 2}


def test_a_mirror_of_the_old_topic_pays_nothing_twice(kafka: InMemoryKafka, path: Path) -> None:
    """MirrorMaker copies the messages to other offsets; those beyond the horizon are late."""
    kafka.create("payments", 2)
    old = [payment(f"old {number}", NOW_US - (5 + number) * HOUR_US) for number in range(3)]
    near = [payment(f"near {number}", NOW_US - number * MINUTE_US) for number in range(8)]
    kafka.send("payments", 0, *old, *near[:4])
    kafka.send("payments", 1, *near[4:])
    run(config(path))
    kafka.cluster = "cluster-2"
    recreate(kafka, *near[4:], *old, *near[:4], payment("not read before"))
    run(adopting(path, max_records_per_run=5))
    paid = [row[0] for row in table(path, IDS)]
    assert sorted({*paid}) == paid and "not read before" in paid and len(paid) == 12
    assert len(table(path, COPIES)) == 8
    assert [row[0] for row in table(path, REJECTED)] == ["late"] * 3
    assert failures(path) == []


# What is said.


def test_the_adoption_is_in_the_summary_once_and_noted_for_ever(
    moved: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run_command(adopting(path), lambda: NOW_US)
    figures = json.loads(capsys.readouterr().out)
    (adopted,) = figures["adopted_topics"]
    assert {**adopted, "run_id": ""} == {
        "run_id": "", "topic": "payments", "generation": "payments#2",
        "old_topic_id": "old", "old_cluster_id": "cluster-1",
        "topic_id": "new", "cluster_id": "cluster-1",
        "positions": [{"partition": 0, "position": 2}, {"partition": 1, "position": 1}],
    }  # fmt: skip
    assert [(part["topic"], part["position"], part["lag"]) for part in figures["positions"]] == [
        ("payments#2", 2, 0)
    ]
    run_command(adopting(path), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["adopted_topics"] == []
    assert noted(path)["adopted topics"] == [adopted]
    assert "topics that the last run did not name" not in noted(path)


def test_the_summary_says_it_in_words(
    moved: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(adopting(path, json=False), lambda: NOW_US)
    printed = capsys.readouterr().out
    assert "payments (id old, cluster cluster-1) was read up to offset 2 of partition 0" in printed
    assert "goes on as payments#2 (id new, cluster cluster-1)" in printed


def test_a_topic_that_is_not_named_is_its_current_generation(
    moved: InMemoryKafka, path: Path
) -> None:
    run(adopting(path))
    moved.create("refunds", 1)
    moved.send("payments", 0, payment("e"))
    run(config(path, topics=("refunds",)), notes=(notes := Notes()))
    assert notes.forgotten == [ForgottenTopic("payments", waiting=1)]
    moved.send("refunds", 0, payment("r"))
    run(config(path, topics=("refunds",)))
    assert "topics that the last run did not name" in noted(path)


def test_records_are_rejected_by_the_coordinates_of_the_tables(
    moved: InMemoryKafka, path: Path
) -> None:
    run(adopting(path))
    moved.send("payments", 0, payment("e"))
    message = refused(config(path, reject_records={("payments", 0): (2,)}), path)
    assert "begin with payments#2 now" in message
    run(config(path, reject_records={("payments#2", 0): (2,)}))
    assert table(path, REJECTED) == [("refused_by_destination", "payments#2", 0, 2)]


def test_the_history_of_a_topic_is_that_of_all_its_generations(
    moved: InMemoryKafka, path: Path
) -> None:
    """A few late records at the beginning of a mirror do not stop it, a topic of them does."""
    recreate(moved, payment("late", NOW_US - 9 * HOUR_US))
    run(adopting(path, max_rejected_rate=0.5))
    moved.send("payments", 0, *(payment(f"late {n}", NOW_US - 9 * HOUR_US) for n in range(9)))
    run(config(path, max_rejected_rate=0.5))
    moved.send("payments", 0, payment("late 10", NOW_US - 9 * HOUR_US))
    assert "so were 10 of 13" in refused(config(path, max_rejected_rate=0.5), path)


@pytest.mark.parametrize(
    ("change", "where", "problem"),
    [
        ("cluster_id = 'x'", "run_id != 'genesis'", "cluster"),
        ("cluster_id = 'x'", "run_id = 'genesis'", "cluster"),
        (
            'settings = json_merge_patch(settings, \'{"topic_clusters":{"payments#2":"x"}}\')',
            "successor IS NULL",
            "read from cluster-1, but it is in x",
        ),
        (
            "partitions = list_transform(partitions, lambda part: struct_update(part,"
            " topic := replace(part.topic, '#2', '#3')))",
            "successor IS NULL",
            "the generation after payments",
        ),
        (
            "partitions = list_transform(partitions, lambda part: struct_update(part,"
            " to_offset := part.to_offset + 1))",
            "successor IS NULL",
            "read although payments#2 had followed it",
        ),
    ],
)
def test_a_ledger_that_was_altered_is_found_out(
    moved: InMemoryKafka, path: Path, change: str, where: str, problem: str
) -> None:
    import duckdb

    run(adopting(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"UPDATE pipeline_runs SET {change} WHERE {where}")
    found = [result for result in failures(path) if result.name == "the ledger is one chain"]
    assert any(problem in row["problem"] for result in found for row in result.proof), found


# Interleavings.


def test_of_two_runs_that_adopt_at_once_one_stops_with_nothing_visible(
    moved: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.run import prepare as prepare_step
    from transforms.destinations.duckdb.streams import DuckDBStreams

    original = prepare_step.make_record

    def overtaken(*arguments: Any) -> RunRecord:
        record = original(*arguments)
        monkeypatch.setattr(prepare_step, "make_record", original)
        with monkeypatch.context() as patch:
            patch.setattr(DuckDBStreams, "discard", lambda *_, **__: 0)
            run(adopting(path))
        return record

    monkeypatch.setattr(prepare_step, "make_record", overtaken)
    with pytest.raises(GuaranteeError, match="another run has followed"):
        run(adopting(path))
    assert len(noted(path)["adopted topics"]) == 1
    assert run(config(path)) == []
    assert failures(path) == []


@pytest.mark.parametrize("values", [(), (b"broken",)])
def test_a_run_of_the_old_topic_that_was_planned_before_loses(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, values: tuple[bytes, ...]
) -> None:
    """Its servers still lead to the old cluster; the other run has adopted the new one."""
    from pipeline.run import prepare as prepare_step
    from transforms.destinations.duckdb.streams import DuckDBStreams

    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, payment("b"))
    old = kafka.topics["payments"]
    original = prepare_step.make_record

    def overtaken(*arguments: Any) -> RunRecord:
        record = original(*arguments)
        monkeypatch.setattr(prepare_step, "make_record", original)
        with monkeypatch.context() as patch:
            patch.setattr(DuckDBStreams, "discard", lambda *_, **__: 0)
            recreate(kafka, *values)
            kafka.cluster = "cluster-2"
            run(adopting(path))
        return record

    monkeypatch.setattr(prepare_step, "make_record", overtaken)
    with pytest.raises(GuaranteeError, match="another run has followed"):
        run(config(path))
    kafka.topics["payments"], kafka.cluster = old, "cluster-1"
    assert "--adopt_topic=payments#3@old" in refused(config(path), path)
    assert table(path, IDS) == [("a",)]
    assert failures(path) == []


@pytest.mark.parametrize("flag", [False, True])
def test_an_adoption_that_died_between_its_tables_is_rolled_forward(
    moved: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, flag: bool
) -> None:
    die_after(1, path, monkeypatch, **ACCEPTED)
    assert failures(path) == []
    run(adopting(path) if flag else config(path), notes=(notes := Notes()))
    assert [one.generation for one in notes.adopted] == ["payments#2"]
    assert table(path, ROWS)[-1] == ("payments#2", 0, 1, "d")
    assert failures(path) == []


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("cluster", ["cluster-1", "cluster-2"])
def test_an_adoption_whose_streams_expired_is_repaired_from_the_new_topic(
    moved: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, flag: bool, cluster: str
) -> None:
    moved.cluster = cluster
    moved.send("payments", 0, b"broken")
    die_after(1, path, monkeypatch, **ACCEPTED)
    expire(path)
    moved.send("payments", 0, payment("e"))
    run(adopting(path) if flag else config(path), notes=(notes := Notes()))
    assert [one.generation for one in notes.adopted] == ["payments#2"]
    assert [record.status for record in records(path)][-3:] == [ABORTED, COMMITTED, COMMITTED]
    assert clusters_of(records(path)[-1]) == {"payments": "cluster-1", "payments#2": cluster}
    assert table(path, ROWS)[-2:] == [("payments#2", 0, 1, "d"), ("payments#2", 0, 3, "e")]
    assert table(path, COPIES) == [("b",)]
    assert table(path, REJECTED) == [("invalid_json", "payments#2", 0, 2)]
    assert failures(path) == []


def test_an_adoption_of_which_nothing_became_visible_is_decided_anew(
    moved: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after(0, path, monkeypatch, **ACCEPTED)
    expire(path)
    with pytest.raises(GuaranteeError, match="--adopt_topic=payments@new"):
        run(config(path))
    assert records(path)[-1].status == ABORTED
    assert "adopted topics" not in noted(path)
    moved.cluster = "cluster-3"
    recreate(moved, payment("z"), topic_id="third")
    run(adopting(path, "third"))
    assert table(path, ROWS)[-1] == ("payments#2", 0, 0, "z")
    assert failures(path) == []


def test_a_dead_run_of_the_old_topic_that_is_visible_as_a_whole_does_not_need_it(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"))
    die_after(1, path, monkeypatch)
    expire(path)
    kafka.cluster = "cluster-2"
    recreate(kafka, payment("a"), payment("b"))
    run(adopting(path))
    assert [record.status for record in records(path)][1:] == [ABORTED, COMMITTED, COMMITTED]
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_repair_that_needs_the_old_topic_does_not_offer_the_new_one(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"), payment("a"))
    die_after(1, path, monkeypatch)
    expire(path)
    recreate(kafka, payment("b"))
    assert records(path)[-1].status == PREPARED
    message = refused(config(path), path)
    assert "needed to complete a run" in message and "--adopt_topic" not in message
    assert "needed to complete a run" in refused(adopting(path), path)


def test_a_repair_that_needs_another_cluster_says_so(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"), payment("a"))
    die_after(1, path, monkeypatch)
    expire(path)
    old = kafka.topics["payments"]
    recreate(kafka, payment("b"))
    kafka.cluster = "cluster-2"
    assert "needed from the Kafka cluster cluster-1" in refused(adopting(path), path)
    kafka.topics["payments"], kafka.cluster = old, "cluster-1"
    run(config(path))
    assert table(path, COPIES) == [("a",)]
    assert failures(path) == []


def test_the_same_in_bigquery(kafka: InMemoryKafka, stand_in: BigQueryStandIn) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"), payment("b"))
    run(bigquery(stand_in))
    recreate(kafka)
    kafka.cluster = "cluster-2"
    run(bigquery(stand_in, **ACCEPTED))
    kafka.send("payments", 0, payment("b"), payment("c"))
    run(bigquery(stand_in))
    assert stand_in.sql(ROWS) == [
        ("payments", 0, 0, "a"), ("payments", 0, 1, "b"), ("payments#2", 0, 1, "c"),
    ]  # fmt: skip
    assert bigquery_failures(stand_in) == []


def test_a_repair_of_an_adoption_in_bigquery(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"))
    run(bigquery(stand_in))
    recreate(kafka, payment("a"), payment("b"), b"broken")
    die_while_committing(1, lambda: run(bigquery(stand_in, **ACCEPTED)), monkeypatch)
    forget_streams(stand_in)
    run(bigquery(stand_in), notes=(notes := Notes()))
    assert [one.generation for one in notes.adopted] == ["payments#2"]
    assert stand_in.sql(ROWS) == [("payments", 0, 0, "a"), ("payments#2", 0, 1, "b")]
    assert bigquery_failures(stand_in) == []
