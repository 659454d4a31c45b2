"""What a benchmark sees of a job's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.checkpoint_watch import CheckpointWatch, in_words
from runners.flink.rest import FlinkUnreachable


class Rest:
    """Flink's answers. history: (number, status, begun, took), times in milliseconds."""

    def __init__(self) -> None:
        self.history: list[tuple[int, str, int, int]] = []
        self.is_away = False

    def jobs(self) -> list[dict[str, Any]]:
        if self.is_away:
            raise FlinkUnreachable("away")
        return [{"jid": "job"}]

    def checkpoints(self, _job: str) -> dict[str, Any]:
        return {
            "counts": {"in_progress": sum(each[1] == "IN_PROGRESS" for each in self.history)},
            "history": [
                {
                    "id": number,
                    "status": status,
                    "trigger_timestamp": begun,
                    "end_to_end_duration": took,
                    "state_size": 300_000_000,
                    "checkpointed_size": 300_000_000,
                    "is_savepoint": False,
                }
                for number, status, begun, took in self.history
            ],
        }


def test_checkpoints_of_several_looks_are_told_apart_and_the_newest_look_counts() -> None:
    rest = Rest()
    watch = CheckpointWatch(rest)  # type: ignore[arg-type]
    rest.history = [(1, "COMPLETED", 1_000, 2_000), (2, "IN_PROGRESS", 3_200, 500)]
    victim = watch.one_in_progress()
    assert (victim.number, victim.is_complete) == (2, False)
    rest.is_away = True
    watch.look()
    rest.is_away = False
    rest.history = [(2, "FAILED", 3_200, 900), (3, "COMPLETED", 5_000, 3_000)]
    watch.look()
    assert not watch.now(victim).is_complete
    assert [each.number for each in watch.completed()] == [1, 3]
    assert watch.most_at_once == 1
    assert list(watch.overlapping()) == []
    assert in_words(watch.completed()) == (
        "2 checkpoints, 2.5 s each (2.0 to 3.0), 300 MB, of which 300 MB written by each"
    )


def test_two_at_once_are_seen_although_no_look_came_between() -> None:
    rest = Rest()
    watch = CheckpointWatch(rest)  # type: ignore[arg-type]
    rest.history = [(1, "COMPLETED", 1_000, 2_000), (2, "COMPLETED", 2_999, 500)]
    watch.look()
    assert list(watch.overlapping()) == ["checkpoint 2 began before 1 had ended"]


def test_a_checkpoint_is_complete_on_the_disk_or_not() -> None:
    rest = Rest()
    watch = CheckpointWatch(rest)  # type: ignore[arg-type]
    rest.history = [(2, "IN_PROGRESS", 3_200, 500)]
    victim = watch.one_in_progress()
    assert victim.lies_in([Path("/c/job/chk-2")])
    assert not victim.lies_in([Path("/c/job/chk-12"), Path("/c/other/chk-2")])
