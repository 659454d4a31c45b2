"""From what a failed job says, Java's words mostly, to one sentence a person can act on."""

from __future__ import annotations

import re
from typing import Final

from runners.profile import RunAborted

_PYTHON: Final = "Traceback (most recent call last)"
_JAVA_FRAME: Final = re.compile(r"^\s+at [\w.$/<>]+\(.*\)\s*$|^\s*\.\.\. \d+ more\s*$")
_PASSED_ON: Final = re.compile(r"^(?:Driver stacktrace:|Caused by: )")

ONE_CONTEXT: Final = "Only one SparkContext"
"""Another job is still in the job server, or is just ending there."""

_LOST: Final = re.compile(
    r"grpc\.|_MultiThreadedRendezvous|_InactiveRpcError|Channel closed prematurely"
    r"|Unknown process bundle instruction id"
)
"""The last line of a Python traceback that only says that the Java side has gone."""

_SENTENCES: Final = (
    (r"InterruptedException|the job is CANCELLED", "somebody has cancelled the job"),
    (
        r"OutOfMemoryError|GC overhead limit",
        "the job server or an executor has run out of heap. Start it with more"
        " (`payment-pipeline spark up --max_records_per_run=N` makes it for runs of N records), or"
        " give --max_records_per_run a smaller number here",
    ),
    (
        r"ExecutorLostFailure|Lost executor|executor \d+ exited|Executor heartbeat timed out",
        "an executor was lost too often for Spark to go on",
    ),
    (
        r"Process died with exit code|Process .* exited|Cannot run program|ProcessManager",
        "a Python worker could not be started, or ended at once. Is the command of"
        " --environment_config on every machine, with this version of the pipeline?",
    ),
    (
        r"ExternalWorkerPool[\w$]*\.startWorker",
        "the worker pool of --environment_config has started no Python worker. Does it answer at"
        " that address on every machine of Spark?",
    ),
    (
        r"[Mm]ultiplexer|half-closed|CANCELLED|UNAVAILABLE|control client|SDK [Hh]arness|Connection"
        r" reset|Broken pipe|InstructionRequest",
        "a Python worker has ended, or its connection is lost",
    ),
    (
        r"SparkContext (?:was|has been) (?:shut down|stopped)|stopped SparkContext"
        r"|cancelled because SparkContext",
        "Spark was stopped while the run went on",
    ),
    (
        r"All masters are unresponsive|Master removed our application|failed to connect to master",
        "the Spark cluster behind the job server does not answer",
    ),
    (
        r"FetchFailed|Failed to fetch|Could not (?:read|find) block|BlockNotFound",
        "what Spark had kept between two stages was lost",
    ),
    (r"No space left on device", "a disk of Spark is full"),
)


class StepFailed(RuntimeError):
    """A step of the graph has raised: the text is its Python traceback, of the worker."""


def failure_of_job(text: str, address: str) -> RunAborted | StepFailed:
    """What the words of a failed job mean.

    address: HOST:PORT of the job server. A Python error is that of a step, and would come again;
    anything else is none of the run's own, so the run can be tried again.
    """
    python = python_cause(text)
    if python is not None:
        return StepFailed(python)
    return RunAborted(f"{sentence_of(text)}. {place_of_log(address)}")


def python_cause(text: str) -> str | None:
    """The traceback of the Python error in it; None where there is none but a broken connection."""
    start = text.find(_PYTHON)
    if start < 0:
        return None
    lines = []
    for line in text[start:].splitlines():
        if _JAVA_FRAME.match(line) or _PASSED_ON.match(line):
            break
        lines.append(line)
    cause = "\n".join(lines).rstrip()
    return None if _LOST.search(_last_error(lines)) else cause


def sentence_of(text: str) -> str:
    """One sentence without an end, for words of Java."""
    for pattern, sentence in _SENTENCES:
        if re.search(pattern, text):
            return sentence
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return f"Spark says: {first[:300]}"


def place_of_log(address: str) -> str:
    """Where more is said."""
    return (
        f"The log of the job server at {address} says more (`payment-pipeline spark status` shows"
        " the place of that of `spark up`)."
    )


def _last_error(lines: list[str]) -> str:
    """The line of the newest error: the last one of those that are not indented."""
    return next((line for line in reversed(lines) if line[:1].strip()), "")
