"""What the client of a streaming job says of its restarts, and how often it shows the counters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest

from pipeline.failures import JobFailed, failure_of
from pipeline.streaming import follow
from pipeline.streaming.flink_job import cause_of
from pipeline.streaming.follow import Follower, counters_shown
from runners.flink.rest import FlinkUnreachable, NotKnown
from transforms.model.errors import GuaranteeError, TryAgainLater

LOST = """org.apache.flink.runtime.jobmaster.JobMasterException: TaskManager 7 is gone.
\tat org.apache.flink.runtime.jobmaster.JobMaster.disconnectTaskManager(JobMaster.java:1)"""
NO_SLOT = """java.util.concurrent.CompletionException: none
\tat java.base/java.util.concurrent.CompletableFuture.x(CompletableFuture.java:1)
Caused by: org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException: no slot"""
OURS = """java.lang.Exception: x
Caused by: java.lang.RuntimeException: Error received: Traceback (most recent call last):
  File "x.py", line 1, in y
ValueError: odd payment [while running 'ReadLoop']
"""

EXPIRED = """org.apache.flink.util.FlinkRuntimeException: Exceeded checkpoint tolerable failure \
threshold. The latest checkpoint failed due to Checkpoint expired before completing., view the \
Checkpoint History tab or the Job Manager log to find out why continuous checkpoints failed.
\tat org.apache.flink.runtime.checkpoint.CheckpointFailureManager.x(X.java:1)"""


class Job:
    """Each look finds the next state and failures of the list, newest first."""

    def __init__(self, looks: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._looks = list(looks)

    def state(self) -> str:
        return self._looks[0][0]

    def failures(self) -> Sequence[str]:
        return self._looks.pop(0)[1] if len(self._looks) > 1 else self._looks[0][1]

    def figures(self) -> Mapping[str, float]:
        return {}


def lines_of(looks: Sequence[tuple[str, Sequence[str]]], caplog) -> list[str]:
    with caplog.at_level(logging.WARNING):
        Follower(Job(looks), _nothing, lambda: 0, tuple, _nothing).until_end()  # type: ignore[arg-type]
    return [record.getMessage() for record in caplog.records]


def _nothing(_: object) -> None:
    pass


def test_a_lost_task_manager_is_one_line_and_the_wait_for_another_one_too(caplog) -> None:
    looks = [
        ("RESTARTING", [LOST]),
        ("RESTARTING", [NO_SLOT, LOST]),
        ("RESTARTING", [NO_SLOT, NO_SLOT, NO_SLOT, LOST]),
        ("CANCELED", [NO_SLOT, NO_SLOT, NO_SLOT, LOST]),
    ]
    assert lines_of(looks, caplog) == [
        "the job begins again from its last checkpoint: JobMasterException: TaskManager 7 is gone.",
        "the job waits for a task slot: does a TaskManager run? (NoResourceAvailableException: no"
        " slot)",
    ]


def test_a_checkpoint_that_has_expired_names_the_option(caplog) -> None:
    looks = [("RESTARTING", [EXPIRED]), ("CANCELED", [EXPIRED])]
    assert lines_of(looks, caplog) == [
        "the job begins again from its last checkpoint: the next one was not complete within"
        " --checkpoint_timeout_millis. If it happens again, give more: a start without a checkpoint"
        " loads ids first, and a slow volume takes longer to write"
    ]


def test_each_restart_by_an_error_of_ours_is_said(caplog) -> None:
    looks = [("RESTARTING", [OURS]), ("RUNNING", [OURS, OURS]), ("CANCELED", [OURS, OURS])]
    line = "the job begins again from its last checkpoint: ValueError: odd payment"
    assert lines_of(looks, caplog) == [line, line]


def end_of(state: str, failures: Sequence[str], *marked: str) -> str:
    looks = [(state, failures), (state, failures)]
    follower = Follower(Job(looks), _nothing, lambda: 0, lambda: marked, _nothing)  # type: ignore[arg-type]
    return follower.until_end()


DECIDED = f"java.lang.Exception: {GuaranteeError('deleted')}"


def test_a_job_that_an_error_has_ended_says_so_whatever_failed_after_it() -> None:
    with pytest.raises(GuaranteeError) as ended:
        end_of("CANCELED", [LOST, DECIDED], "deleted")
    assert ended.value.message == "deleted"


def test_an_error_that_a_restart_has_mended_is_not_why_a_job_was_cancelled() -> None:
    assert end_of("CANCELED", [DECIDED]) == "CANCELED"


def test_a_job_that_has_run_out_of_restarts_ends_by_its_last_error() -> None:
    with pytest.raises(GuaranteeError):
        end_of("FAILED", [DECIDED, LOST])
    with pytest.raises(JobFailed, match="TaskManager 7 is gone") as failed:
        end_of("FAILED", [LOST, DECIDED])
    ended = failure_of(failed.value)
    assert (ended.status, ended.traceback) == (4, False)
    assert ended.line.startswith("the job has failed: JobMasterException: TaskManager 7 is gone. ")
    assert "--from_tables where there is none" in ended.line


def test_counters_stand_in_the_last_line_of_a_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setattr(follow, "shows_bar", lambda: True)
    with counters_shown() as (show, seconds):
        show("RUNNING: 5/s")
    assert seconds == 2.0
    assert "RUNNING: 5/s" in capsys.readouterr().err


def test_counters_are_log_lines_elsewhere(monkeypatch, caplog) -> None:
    monkeypatch.setattr(follow, "shows_bar", lambda: False)
    with caplog.at_level(logging.INFO), counters_shown() as (show, seconds):
        show("RUNNING: 5/s")
    assert seconds == 10.0
    assert [record.getMessage() for record in caplog.records] == ["RUNNING: 5/s"]


def test_the_cause_is_the_deepest_one_without_its_package() -> None:
    assert cause_of(NO_SLOT) == "NoResourceAvailableException: no slot"


class Silent(Job):
    """Flink answers each look with the error; `looks` counts them."""

    def __init__(self, error: FlinkUnreachable) -> None:
        super().__init__([])
        self._error, self.looks = error, 0

    def state(self) -> str:
        self.looks += 1
        raise self._error


@pytest.mark.parametrize(
    ("error", "seconds", "words"),
    [
        (FlinkUnreachable("Connection refused"), 300, "does not answer for 300 s (Connection"),
        (NotKnown("status 404"), 1, "does not know the job any more"),
    ],
)
def test_a_command_whose_flink_is_gone_ends_and_says_how_to_go_on(
    error: FlinkUnreachable, seconds: int, words: str
) -> None:
    """It would hold a DuckDB file for ever, and `stop --lost` could not open it."""
    job, slept = Silent(error), []
    with pytest.raises(TryAgainLater) as ended:
        Follower(job, _nothing, lambda: 0, tuple, slept.append).until_end()  # type: ignore[arg-type]
    assert (job.looks, sum(slept)) == (seconds, seconds - 1)
    assert words in ended.value.message
    assert "--restore=latest" in ended.value.message
