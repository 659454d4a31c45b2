"""Flink's REST interface, as far as it is needed.

https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

_PAUSE_SECONDS: Final = 0.1

ENDED: Final = ("FINISHED", "CANCELED", "FAILED")
"""States that a job does not leave any more."""


_NOT_FLINK: Final = (
    "what listens there is not Flink's REST interface (the job server and the worker pools have"
    " ports of their own, and speak gRPC)"
)


class FlinkUnreachable(RuntimeError):
    """The JobManager does not answer, or its answer is an error."""


class NotKnown(FlinkUnreachable):
    """The JobManager answers, and does not know what it was asked for."""


class FlinkRest:
    """The REST interface of one JobManager.

    address: HOST:PORT. Every call raises FlinkUnreachable when there is no good answer within
    `timeout` seconds.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        self.address = address.removeprefix("http://").rstrip("/")
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """The answer to GET, from JSON."""
        return self._call(urllib.request.Request(f"http://{self.address}{path}"))

    def overview(self) -> dict[str, Any]:
        """Figures of the cluster: taskmanagers, slots-total, slots-available, jobs-running ..."""
        found: dict[str, Any] = self.get("/overview")
        return found

    def configuration(self) -> dict[str, str]:
        """The JobManager's configuration in force, by key."""
        return {entry["key"]: entry["value"] for entry in self.get("/jobmanager/config")}

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that the JobManager knows, newest first: jid, name, state, start-time ..."""
        found: list[dict[str, Any]] = self.get("/jobs/overview")["jobs"]
        return sorted(found, key=lambda job: job["start-time"], reverse=True)

    def running_jobs(self) -> list[dict[str, Any]]:
        """The jobs that have not ended, newest first."""
        return [job for job in self.jobs() if job["state"] not in ENDED]

    def options_of(self, job: str) -> dict[str, str]:
        """The options that the job was submitted with, by Beam's names in camel case."""
        found: dict[str, str] = self.get(f"/jobs/{job}/config")["execution-config"]["user-config"]
        return found

    def job_state(self, job: str) -> str:
        """RUNNING, RESTARTING, FAILED ..."""
        return str(self.get(f"/jobs/{job}")["state"])

    def exceptions(self, job: str) -> list[str]:
        """The stack traces of the job's failures, newest first."""
        history = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return [str(entry["stacktrace"]) for entry in history]

    def checkpoints(self, job: str) -> dict[str, Any]:
        """The job's checkpoint statistics: counts, latest, history ..."""
        found: dict[str, Any] = self.get(f"/jobs/{job}/checkpoints")
        return found

    def checkpoint_configuration(self, job: str) -> dict[str, Any]:
        """How the job takes checkpoints: interval, max_concurrent, externalization ..."""
        found: dict[str, Any] = self.get(f"/jobs/{job}/checkpoints/config")
        return found

    def ask_to_cancel(self, job: str) -> None:
        """Begins to cancel the job, and does not wait."""
        self._call(self._request(f"/jobs/{job}?mode=cancel", "PATCH"))

    def cancel(self, job: str, seconds: float = 60.0) -> None:
        """Cancels the job and waits until it has ended. Raises TimeoutError.

        Flink refuses to cancel a job that has failed by itself meanwhile:
        https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/#jobs-jobid-1
        """
        try:
            self.ask_to_cancel(job)
        except FlinkUnreachable:
            if self.job_state(job) not in ENDED:
                raise
        self.wait_for_state(job, ENDED, seconds)

    def savepoint(self, job: str, folder: str, seconds: float = 300.0) -> str:
        """Takes a savepoint while the job runs on; returns its address.

        folder: an address, file:///... Raises TimeoutError, or FlinkUnreachable with the cause.
        """
        return self._savepoint(
            f"/jobs/{job}/savepoints", job, {"target-directory": folder}, seconds
        )

    def stop_with_savepoint(self, job: str, folder: str, seconds: float = 300.0) -> str:
        """Stops the job at a savepoint, so that nothing is processed behind it.

        Returns its address. Raises TimeoutError, or FlinkUnreachable with the cause.
        """
        place = self._savepoint(
            f"/jobs/{job}/stop", job, {"targetDirectory": folder, "drain": False}, seconds
        )
        self.wait_for_state(job, ENDED, seconds)
        return place

    def wait_for_state(self, job: str, states: tuple[str, ...], seconds: float) -> str:
        """The job's state, once it is one of them. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while (state := self.job_state(job)) not in states:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} is {state} after {seconds:.0f} s, not {states}")
            time.sleep(_PAUSE_SECONDS)
        return state

    def _savepoint(self, path: str, job: str, body: Mapping[str, Any], seconds: float) -> str:
        trigger = self._call(self._request(path, "POST", body))["request-id"]
        deadline = time.monotonic() + seconds
        while True:
            answer = self.get(f"/jobs/{job}/savepoints/{trigger}")
            if answer["status"]["id"] == "COMPLETED":
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the savepoint of job {job} is not there after {seconds:.0f} s")
            time.sleep(_PAUSE_SECONDS)
        operation = answer["operation"]
        if cause := operation.get("failure-cause"):
            raise FlinkUnreachable(f"no savepoint of job {job}: {_root_cause(cause)}")
        return str(operation["location"])

    def _request(
        self, path: str, method: str, body: Mapping[str, Any] | None = None
    ) -> urllib.request.Request:
        return urllib.request.Request(
            f"http://{self.address}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )

    def _call(self, request: urllib.request.Request) -> Any:
        what = f"{request.get_method()} {request.full_url}"
        try:
            with _OPENER.open(request, timeout=self._timeout) as answer:
                text = answer.read().decode(errors="replace")
        except urllib.error.HTTPError as refused:
            with refused:
                text = refused.read().decode(errors="replace")
            kind = NotKnown if refused.code == HTTPStatus.NOT_FOUND else FlinkUnreachable
            raise kind(f"{what}: status {refused.code}: {_first_line(text)}") from refused
        except http.client.BadStatusLine as error:
            if isinstance(error, http.client.RemoteDisconnected):
                raise FlinkUnreachable(f"{what}: the connection was closed") from error
            raise FlinkUnreachable(f"{what}: {_NOT_FLINK}") from error
        except (OSError, http.client.HTTPException) as error:
            raise FlinkUnreachable(f"{what}: {getattr(error, 'reason', error)}") from error
        try:
            return json.loads(text or "null")
        except json.JSONDecodeError as error:
            raise FlinkUnreachable(f"{what}: {_NOT_FLINK}") from error


# A proxy of the environment does not lead to a server on this machine.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _first_line(text: str) -> str:
    try:
        errors = json.loads(text)["errors"]
    except (ValueError, KeyError, TypeError):
        errors = [text]
    return next((line for error in errors for line in str(error).splitlines() if line), "")


def _root_cause(cause: Mapping[str, Any]) -> str:
    lines = str(cause.get("stack-trace", cause)).splitlines()
    causes = [line.strip() for line in lines if line.startswith("Caused by:")]
    return (causes or lines[:1])[-1]
