"""A job in Flink: its figures, checkpoints and restarts, and one line for its errors."""

from __future__ import annotations

import pytest

from pipeline.streaming.flink_job import Checkpoint, FlinkJob, cause_of, find_job, flink_name
from tests.support.fake_flink import JID, JOB_ID, NAME, FakeFlink, counting
from transforms.model.errors import GuaranteeError, TryAgainLater

PYTHON = """org.apache.flink.runtime.taskmanager.AsynchronousException: Caught exception
\tat org.apache.flink.streaming.runtime.tasks.StreamTask.handle(StreamTask.java:1)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 3: Traceback
Traceback (most recent call last):
  File "bundle.py", line 3, in recover
    known: int = found
KeyError: 'streams'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 313, in _execute
    response = task()
transforms.stream.errors.Superseded: payments: another process has it [while running 'Write']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient(FnApiControlClient.java:177)
\t... 1 more
Caused by: java.lang.RuntimeException: the same once more
"""

JAVA = """java.lang.Exception: Could not perform checkpoint 7 for operator ReadLoop (1/2)#0.
\tat org.apache.flink.streaming.runtime.tasks.StreamTask.trigger(StreamTask.java:1)
Caused by: org.apache.flink.runtime.checkpoint.CheckpointException: Could not complete it.
\tat org.apache.flink.streaming.runtime.tasks.Coordinator(Coordinator.java:281)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.writeBytes(Native Method)
"""


def test_a_python_error_is_shown_with_its_kind_and_message() -> None:
    assert cause_of(PYTHON) == "Superseded: payments: another process has it"


def test_of_a_java_stack_the_deepest_cause_is_shown() -> None:
    assert cause_of(JAVA) == "IOException: No space left on device"


def test_a_java_error_without_a_cause_is_its_own_first_line() -> None:
    failure = "org.apache.flink.util.FlinkException: TaskExecutor is lost.\n\tat org.apache.x(y)"
    assert cause_of(failure) == "FlinkException: TaskExecutor is lost."


@pytest.mark.parametrize("kind", [GuaranteeError, TryAgainLater])
def test_an_error_that_a_person_must_decide_is_shown_by_its_message(
    kind: type[GuaranteeError],
) -> None:
    text = PYTHON.replace(
        "transforms.stream.errors.Superseded: payments: another process has it",
        f"transforms.model.errors.{kind.__name__}: {kind('topic payments is another one.')}",
    )
    assert cause_of(text) == "topic payments is another one."


def test_a_job_is_found_by_its_name() -> None:
    flink = FakeFlink()
    assert flink_name(JOB_ID) == NAME
    assert find_job(flink, JOB_ID) == FlinkJob(flink, JID)
    assert find_job(flink, "job-2") is None


def test_figures_are_added_up_over_the_vertices_and_asked_for_in_parts() -> None:
    flink = FakeFlink()
    counting(flink)
    flink.count("v1", "ReadLoop", **{f"kafka_lag_many_{number}": 1 for number in range(100)})
    found = FlinkJob(flink, JID).figures()
    assert found["appends"] == 4
    assert sum(value for name, value in found.items() if name.startswith("kafka_lag")) == 112
    assert flink.calls.count(f"GET /jobs/{JID}/vertices/v1/subtasks/metrics") == 4


def test_restarts_and_the_newest_checkpoint() -> None:
    flink = FakeFlink()
    job = FlinkJob(flink, JID)
    assert (job.restarts(), job.newest_checkpoint()) == (0, None)
    flink.restarts = 3
    flink.checkpoint = {
        "trigger_timestamp": 5,
        "state_size": 70,
        "external_path": "file:///c/chk-2",
    }
    assert job.restarts() == 3
    assert job.newest_checkpoint() == Checkpoint(5_000, 70, "file:///c/chk-2")
    flink.restarts = None
    assert job.restarts() == 0
