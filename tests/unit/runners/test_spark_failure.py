"""Words of Java become one sentence; the error of a step stays what Python says."""

from __future__ import annotations

import pytest

from runners.profile import RunAborted
from runners.spark.failure import StepFailed, failure_of_job
from transforms.model.errors import GuaranteeError, TryAgainLater

ADDRESS = "localhost:8099"

OF_A_STEP = """\
org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 3.0 failed 4 \
times, most recent failure: Lost task 1.3 in stage 3.0 (TID 11) (host executor driver): \
java.lang.RuntimeException: Error received from SDK harness for instruction 12: Traceback (most \
recent call last):
  File "apache_beam/runners/common.py", line 1498, in process
    return self.do_fn_invoker.invoke_process(windowed_value)
ValueError: no such thing

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 311, in _execute
    response = task()
ValueError: no such thing [while running 'DecodeRecords']

\tat org.apache.beam.runners.fnexecution.x.FnApiControlClient.onNext(FnApiControlClient.java:1)
\tat java.base/java.lang.Thread.run(Thread.java:840)

Driver stacktrace:
"""

BROKEN_CONNECTION = """\
java.lang.RuntimeException: Error received from SDK harness for instruction 9: Traceback (most \
recent call last):
  File "sdk_worker.py", line 311, in _execute
    response = task()
RuntimeError: Channel closed prematurely
"""


def test_the_error_of_a_step_is_its_python_traceback() -> None:
    failure = failure_of_job(OF_A_STEP, ADDRESS)
    assert isinstance(failure, StepFailed)
    text = str(failure)
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("ValueError: no such thing [while running 'DecodeRecords']")
    assert "FnApiControlClient" not in text


@pytest.mark.parametrize("kind", [GuaranteeError, TryAgainLater])
def test_a_refusal_of_a_worker_is_found_in_it(kind: type[GuaranteeError]) -> None:
    raised = OF_A_STEP.replace("ValueError: no such thing", f"E: {kind('it is lost')}")
    failure = failure_of_job(raised, ADDRESS)
    found = GuaranteeError.find_in(failure)
    assert type(found) is kind and found.message == "it is lost"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("java.lang.OutOfMemoryError: Java heap space", "run out of heap"),
        ("ExecutorLostFailure (executor 1 exited caused by one of the", "executor was lost"),
        (
            "java.lang.IllegalStateException: Process died with exit code 137",
            "could not be started",
        ),
        ("java.lang.IllegalStateException: call already half-closed", "worker has ended"),
        ("org...StatusRuntimeException: CANCELLED: cancelled before", "worker has ended"),
        ("java.lang.IllegalStateException: SparkContext has been shut down", "Spark was stopped"),
        ("All masters are unresponsive! Giving up.", "cluster behind the job server"),
        ("FetchFailedException: Failed to connect", "kept between two stages was lost"),
        ("java.io.IOException: No space left on device", "disk of Spark is full"),
        (BROKEN_CONNECTION, "worker has ended"),
        (
            "StatusRuntimeException: UNAVAILABLE: io exception\n\tat"
            " x.BeamFnExternalWorkerPoolGrpc$BeamFnExternalWorkerPoolBlockingStub.startWorker(B)",
            "the worker pool of --environment_config has started no",
        ),
        ("x.y.Strange: quite new\n\tat a.b(C.java:1)", "Spark says: x.y.Strange: quite new"),
    ],
)
def test_words_of_java_are_one_sentence_and_the_place_of_the_log(words: str, sentence: str) -> None:
    failure = failure_of_job(words, ADDRESS)
    assert isinstance(failure, RunAborted)
    assert sentence in str(failure)
    assert f"log of the job server at {ADDRESS}" in str(failure)
    assert "\n" not in str(failure) and ".java:" not in str(failure)
