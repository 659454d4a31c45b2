"""What a run has finished, repaired, accepted as lost or left out is in its summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.options.config import LATEST, Start
from pipeline.run import command as command_step
from pipeline.run.command import run_command
from pipeline.run.notes import ForgottenTopic, Loss, Notes
from tests.bigquery_stand_in import BigQueryStandIn
from tests.faults.dying import die_after, die_while_committing
from tests.support.bigquery import bigquery
from tests.support.in_memory_kafka import MARKER, NOW_US, InMemoryKafka, config, payment, run
from tests.support.whole_runs import expire
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

ROWS = {PAYMENTS: 2, DUPLICATES: 1, REJECTED: 1}


def send(kafka: InMemoryKafka, deleted: int = 0) -> None:
    """Two payments, a copy and a broken record, behind so many deleted ones."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, *[payment("deleted")] * deleted)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("a"), b"broken")
    if deleted:
        kafka.topics["payments"].partitions[0].deleted = deleted


def test_a_run_that_finishes_a_dead_one_says_what_became_visible(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(kafka)
    die_after(1, path, monkeypatch)
    notes = Notes()
    assert run(config(path), notes=notes) == []
    (recovered,) = notes.recovered
    assert (recovered.how, recovered.rows) == ("finished", ROWS)
    assert run(config(path), notes=(again := Notes())) == [] and again.recovered == []
    kafka.send("payments", 0, payment("c"))
    die_after(2, path, monkeypatch)
    assert run_command(config(path, json=False), lambda: NOW_US) == 0
    printed = capsys.readouterr().out
    assert "an earlier run: had died while it became visible, and is finished now" in printed
    assert "1 payment_transactions" in printed and "Nothing new" in printed


def test_it_is_in_the_json_too(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(kafka)
    die_after(3, path, monkeypatch)
    capsys.readouterr()
    run_command(config(path), lambda: NOW_US)
    figures = json.loads(capsys.readouterr().out)
    assert figures["transactions"] == 0
    assert [(run["how"], run["rows"]) for run in figures["recovered"]] == [("finished", ROWS)]


def test_it_is_said_where_the_run_is_refused_then(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(kafka)
    die_after(1, path, monkeypatch)
    with pytest.raises(GuaranteeError, match="--topic=none"):
        run_command(config(path, topics=("none",)), lambda: NOW_US)
    assert "finished now: 2 payment_transactions" in capsys.readouterr().err


@pytest.mark.parametrize(("commits", "how"), [(0, "planned again"), (1, "repaired")])
def test_a_run_whose_streams_expired_is_said_with_what_became_of_it(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commits: int,
    how: str,
) -> None:
    send(kafka)
    die_after(commits, path, monkeypatch)
    expire(path)
    notes = Notes()
    (record,) = run(config(path), notes=notes)
    (recovered,) = notes.recovered
    assert (recovered.how, recovered.rows) == (how, ROWS if how == "repaired" else {})
    assert recovered.run_id != record.run_id


def test_an_accepted_loss_is_said_with_its_total(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.create("payments", 2)
    for partition in range(2):
        kafka.send("payments", partition, payment("first"))
    run(config(path))
    for partition in range(2):
        kafka.send("payments", partition, *[payment("x")] * 921, payment(f"last {partition}"))
        kafka.topics["payments"].partitions[partition].deleted = 922 - partition
    capsys.readouterr()
    run_command(config(path, on_data_loss="accept"), lambda: NOW_US)
    figures = json.loads(capsys.readouterr().out)
    assert figures["offsets_lost"] == 921 + 920
    assert figures["losses"] == [
        {"topic": "payments", "partition": 0, "first": 1, "last": 921},
        {"topic": "payments", "partition": 1, "first": 1, "last": 920},
    ]
    run_command(config(path, on_data_loss="accept"), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["losses"] == []


def test_markers_are_no_loss(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), MARKER)
    run(config(path), notes=(notes := Notes()))
    assert notes.losses == []


def test_the_loss_of_a_dead_run_is_said_by_the_run_that_finishes_it(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(kafka)
    run(config(path))
    kafka.send("payments", 0, payment("x"), payment("y"), payment("z"))
    kafka.topics["payments"].partitions[0].deleted = 6
    die_after(1, path, monkeypatch, on_data_loss="accept")
    run(config(path), notes=(notes := Notes()))
    assert notes.losses == [Loss("payments", 0, 4, 5)]


def test_the_same_in_bigquery(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(kafka)
    run(bigquery(stand_in))
    kafka.send("payments", 0, payment("x"), payment("y"), payment("z"))
    kafka.topics["payments"].partitions[0].deleted = 6
    settings = bigquery(stand_in, on_data_loss="accept")
    die_while_committing(1, lambda: run(settings), monkeypatch)
    run(bigquery(stand_in), notes=(notes := Notes()))
    assert [(one.how, one.rows) for one in notes.recovered] == [("finished", {PAYMENTS: 1})]
    assert notes.losses == [Loss("payments", 0, 4, 5)]


# Topics that the run does not name.


@pytest.fixture
def two_topics(kafka: InMemoryKafka, path: Path) -> InMemoryKafka:
    for topic in ("payments", "refunds"):
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment(topic))
    run(config(path, topics=("payments", "refunds")))
    return kafka


def forgotten(path: Path) -> list[ForgottenTopic]:
    notes = Notes()
    run(config(path), notes=notes)
    return list(notes.forgotten)


def test_a_topic_that_is_not_named_is_listed_with_its_backlog(
    two_topics: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forgotten(path) == [ForgottenTopic("refunds")]
    two_topics.send("refunds", 0, *[payment("b")] * 7)
    two_topics.topics["refunds"].partitions[0].deleted = 3
    assert forgotten(path) == [ForgottenTopic("refunds", 5, 2)]
    capsys.readouterr()
    run_command(config(path), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["topics_not_named"] == [
        {"topic": "refunds", "waiting": 5, "lost": 2, "problem": None}
    ]
    run_command(config(path, json=False), lambda: NOW_US)
    printed = capsys.readouterr().out
    assert "refunds, 5 offsets wait, 2 deleted before they were read" in printed
    assert "Nothing new" in printed


@pytest.mark.parametrize("change", ["deleted", "recreated"])
def test_a_topic_that_is_not_named_and_not_there_any_more_refuses_nothing(
    two_topics: InMemoryKafka, path: Path, change: str
) -> None:
    if change == "deleted":
        del two_topics.topics["refunds"]
    else:
        two_topics.create("refunds", 1, topic_id="another")
    two_topics.send("payments", 0, payment("c"))
    (found,) = forgotten(path)
    assert found.topic == "refunds" and found.problem is not None


def test_all_topics_that_are_named_are_no_note(two_topics: InMemoryKafka, path: Path) -> None:
    run(config(path, topics=("payments", "refunds")), notes=(notes := Notes()))
    assert list(notes.forgotten) == []


def test_a_run_that_was_interrupted_says_what_it_had_finished(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(kafka)
    die_after(1, path, monkeypatch)

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_step, "stop_if_interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_command(config(path), lambda: NOW_US)
    assert "finished now" in capsys.readouterr().err


def test_a_start_that_has_no_effect_is_said(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run resolves it, and writes the positions down; later runs go on from those."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    start = Start(LATEST, given="latest")
    run_command(config(path, start=start), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["start_ignored"] is None
    kafka.send("payments", 0, payment("b"), payment("c"))
    run_command(config(path, start=start, json=False), lambda: NOW_US)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("--start=latest is for the first run only: it has no effect")
    assert "accepted 2   duplicates 0   rejected 0" in printed
    run_command(config(path, start=start), lambda: NOW_US)
    assert json.loads(capsys.readouterr().out)["start_ignored"] == "latest"
    run_command(config(path, json=False), lambda: NOW_US)
    assert "--start" not in capsys.readouterr().out
