"""The job in Flink: found by its name, and asked for its state, its errors and its figures.

Beam's job server has no figures of a job while it runs, so they come from Flink's REST interface:
https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from runners.flink.rest import FlinkRest, FlinkUnreachable
from transforms.metrics import NAMESPACE
from transforms.model.errors import GuaranteeError

_LOG = logging.getLogger(__name__)

_PREFIX: Final = f".{NAMESPACE}_"
_NAME: Final = "payment-pipeline-"
_NAMES_PER_QUESTION: Final = 50
_PACKAGE: Final = re.compile(r"^(?:\w+\.)+(?=[A-Z])")
_PYTHON_ERROR: Final = re.compile(r"^(?:[\w.]+\.)?(\w+): (.+)$", re.MULTILINE)


def flink_name(job_id: str) -> str:
    """The name of a job in Flink."""
    return f"{_NAME}{job_id}"


def job_id_in(name: str) -> str | None:
    """The id of ours that is in the name of a job in Flink; None: it is none of ours."""
    return name.removeprefix(_NAME) if name.startswith(_NAME) else None


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    begun_us: microseconds since 1970. size: of the whole state in bytes; an incremental one has
    written less. path: where it lies, None where Flink does not say.
    """

    begun_us: int
    size: int
    path: str | None


@dataclass(frozen=True)
class FlinkJob:
    """One job. jid: Flink's own id of it. Every question raises FlinkUnreachable."""

    rest: FlinkRest
    jid: str

    def state(self) -> str:
        """RUNNING, RESTARTING, FAILED ..."""
        return self.rest.job_state(self.jid)

    def take_savepoint(self) -> str | None:
        """The address of a new savepoint; None where the cluster has no folder for them.

        Raises TimeoutError beside FlinkUnreachable.
        """
        folder = self.rest.configuration().get("state.savepoints.dir")
        return self.rest.savepoint(self.jid, folder) if folder else None

    def failures(self) -> list[str]:
        """The stack traces that have restarted or ended it, newest first."""
        return self.rest.exceptions(self.jid)

    def restarts(self) -> int:
        """How often Flink has begun it again from a checkpoint."""
        found = self.rest.get(f"/jobs/{self.jid}/metrics?get=numRestarts")
        return int(found[0]["value"]) if found else 0

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest complete one that this job has taken; None: it has taken none yet."""
        found: Mapping[str, Any] | None = self.rest.checkpoints(self.jid)["latest"]["completed"]
        if found is None:
            return None
        return Checkpoint(
            found["trigger_timestamp"] * 1000, found["state_size"], found.get("external_path")
        )

    def figures(self) -> dict[str, float]:
        """Name of transforms/metrics.py -> its value, added up over the subtasks.

        In names, Flink writes an underscore for what is no letter or digit.
        """
        found: dict[str, float] = {}
        for vertex in self.rest.get(f"/jobs/{self.jid}")["vertices"]:
            path = f"/jobs/{self.jid}/vertices/{vertex['id']}/subtasks/metrics"
            names = [each["id"] for each in self.rest.get(path) if _PREFIX in each["id"]]
            for first in range(0, len(names), _NAMES_PER_QUESTION):
                wanted = quote(",".join(names[first : first + _NAMES_PER_QUESTION]))
                for each in self.rest.get(f"{path}?get={wanted}&agg=sum"):
                    name = each["id"].partition(_PREFIX)[2]
                    found[name] = found.get(name, 0.0) + float(each["sum"])
        return found


def find_job(rest: FlinkRest, job_id: str) -> FlinkJob | None:
    """The job that Flink runs under this id of ours; None: it runs none.

    Raises FlinkUnreachable.
    """
    name = flink_name(job_id)
    return next((FlinkJob(rest, job["jid"]) for job in rest.jobs() if job["name"] == name), None)


@dataclass(frozen=True)
class EndFlinkJob:
    """Asks Flink, from a worker, to cancel the job that the worker belongs to, without waiting.

    flink_master: HOST:PORT. Where Flink does not answer, its bound of restarts ends the job.
    """

    flink_master: str
    job_id: str

    def __call__(self) -> None:
        rest = FlinkRest(self.flink_master)
        try:
            job = find_job(rest, self.job_id)
            if job is not None:
                rest.ask_to_cancel(job.jid)
        except FlinkUnreachable as error:
            _LOG.warning("the job could not be cancelled: %s", error)


def cause_of(failure: str) -> str:
    """One line that says why: Python's own error where there is one, else Java's deepest cause.

    failure: a stack trace as Flink has it.
    """
    if found := GuaranteeError.find_in(RuntimeError(failure)):
        return found.message
    python = failure.rpartition("Traceback (most recent call last):")[2]
    if python != failure and (lines := _PYTHON_ERROR.findall(python)):
        kind, text = lines[0]
        return f"{kind}: {text.partition(' [while running')[0]}"
    causes = [line for line in failure.splitlines() if line.startswith("Caused by: ")]
    first = failure.strip().partition("\n")[0]
    return _PACKAGE.sub("", (causes or [first])[-1].removeprefix("Caused by: ").strip())
