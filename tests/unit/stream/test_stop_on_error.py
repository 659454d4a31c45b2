"""An error that a restart cannot mend: marked once, confirmed by a second look, then the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.stream import stop_on_error
from transforms.stream.claim import claim
from transforms.stream.stop_on_error import StopOnError

SUBJECT = "payments:0"


class Attempts:
    """Attempts of one job: each looks with fresh eyes, as after a restart of its process."""

    def __init__(self, path: Path) -> None:
        self.destination = DuckDBDestination(str(path))
        self.ended, self.now = 0, 0.0
        with self.destination as opened:
            opened.shards.create(2)
            self.job = opened.shards.begin_job("job", 0, 2)

    def stop(self, job: Job | None = None) -> StopOnError:
        stop_on_error._SEEN.clear()
        return StopOnError(self.destination, job or self.job, self._end, lambda: self.now)

    def go_well(self, stop: StopOnError, subject: str = SUBJECT, seconds: float = 600.0) -> None:
        """Every five minutes, and at the end."""
        end = self.now + seconds
        while self.now < end:
            stop.went_well(subject)
            self.now = min(end, self.now + 300.0)
        stop.went_well(subject)

    def marks(self) -> list[str]:
        with self.destination as opened:
            return [mark.reason for mark in opened.shards.read_marks(self.job.generation)]

    def _end(self) -> None:
        self.ended += 1


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path / "payments.duckdb")


def fails(stop: StopOnError, error: Exception, subject: str = SUBJECT) -> None:
    with pytest.raises(type(error)), stop.watching(subject):
        raise error


def test_the_first_error_marks_and_the_second_look_ends_the_job(attempts: Attempts) -> None:
    fails(attempts.stop(), GuaranteeError("deleted"))
    assert (attempts.marks(), attempts.ended) == (["deleted"], 0)
    fails(attempts.stop(), GuaranteeError("deleted"))
    assert attempts.ended == 1


def test_an_error_that_is_not_there_any_more_takes_its_mark_away(attempts: Attempts) -> None:
    fails(attempts.stop(), GuaranteeError("deleted"))
    attempts.go_well(attempts.stop())
    assert attempts.marks() == []
    fails(attempts.stop(), GuaranteeError("deleted again"))
    assert attempts.ended == 0


def test_an_error_that_comes_late_in_the_replay_is_the_second_look(attempts: Attempts) -> None:
    """It is about a record; polls and bundles before that one are fine each time."""
    for _ in range(2):
        stop = attempts.stop()
        attempts.go_well(stop, seconds=500.0)
        fails(stop, GuaranteeError("another id"))
    assert attempts.ended == 1


def test_the_mark_of_another_subject_confirms_nothing_and_is_replaced(attempts: Attempts) -> None:
    """Were it to stay, an error that restarts the job for ever would never find a mark."""
    fails(attempts.stop(), GuaranteeError("deleted"))
    attempts.go_well(attempts.stop(), "payments:1")
    assert attempts.marks() == ["deleted"]
    fails(attempts.stop(), GuaranteeError("deleted too"), subject="payments:1")
    assert (attempts.marks(), attempts.ended) == (["deleted too"], 0)
    fails(attempts.stop(), GuaranteeError("deleted too"), subject="payments:1")
    assert attempts.ended == 1


def test_a_process_that_has_lost_its_claim_does_not_confirm_a_mark(attempts: Attempts) -> None:
    with attempts.destination as opened:
        (row,) = claim(opened, attempts.job, [1], with_streams=False)
    mine = (1, row.nonce)
    stop = attempts.stop()
    stop.failed("shards", GuaranteeError("lost rows"), mine)
    assert attempts.marks() == ["lost rows"]
    with attempts.destination as opened:
        (row,) = claim(opened, attempts.job, [1], with_streams=False)
    stop.failed("shards", GuaranteeError("of a process believed dead"), mine)
    assert attempts.ended == 0
    stop.failed("shards", GuaranteeError("lost rows"), (1, row.nonce))
    assert attempts.ended == 1


@pytest.mark.parametrize("error", [TryAgainLater("the broker is away"), RuntimeError("a fault")])
def test_what_a_restart_may_mend_leaves_no_mark(attempts: Attempts, error: Exception) -> None:
    fails(attempts.stop(), error)
    assert attempts.marks() == []


def test_a_process_of_a_superseded_job_marks_nothing_and_ends_that_job(attempts: Attempts) -> None:
    """At the first error: its claims are refused for good, and each restart would meet that."""
    with attempts.destination as opened:
        newer = opened.shards.begin_job("newer", attempts.job.generation, 2)
    fails(attempts.stop(), GuaranteeError("superseded"))
    assert attempts.ended == 1
    with attempts.destination as opened:
        assert opened.shards.read_marks(newer.generation) == []
    assert attempts.marks() == []


def test_all_partitions_of_a_process_ask_for_the_marks_once(attempts: Attempts) -> None:
    stop, asked = attempts.stop(), 0
    read = attempts.destination.shards.read_marks

    def counting(generation: int) -> object:
        nonlocal asked
        asked += 1
        return read(generation)

    attempts.destination.shards.read_marks = counting  # type: ignore[assignment]
    for now in (0.0, 600.0, 601.0):
        attempts.now = now
        for partition in range(5):
            stop.went_well(f"payments:{partition}")
    assert asked == 1
