"""Flink's REST interface with answers from a test, below runners/flink/rest.py."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request

from runners.flink.rest import FlinkRest, FlinkUnreachable

JOB_ID = "job-1"
JID = "b5d1"
NAME = f"payment-pipeline-{JOB_ID}"


class FakeFlink(FlinkRest):
    """One JobManager with one job.

    vertices: id -> the figures of its subtasks together, by Flink's name. failures: newest first.
    options: of the job, as Flink shows them. checkpoint: `latest.completed` as Flink answers it.
    calls: method and path of each request.
    """

    def __init__(self) -> None:
        super().__init__("localhost:8081")
        self.name, self.state = NAME, "RUNNING"
        self.vertices: dict[str, dict[str, float]] = {}
        self.failures: list[str] = []
        self.restarts: int | None = 0
        self.checkpoint: dict[str, Any] | None = None
        self.keys: dict[str, str] = {}
        self.savepoint_failure: str | None = None
        self.answers = True
        self.options: dict[str, str] = {}
        self.calls: list[str] = []

    def __call__(self, address: str) -> FakeFlink:
        """In the place of the class FlinkRest."""
        self.address = address
        return self

    def count(self, vertex: str, step: str, **figures: float) -> None:
        """Names as Flink writes them, behind the namespace."""
        names = {f"[1]{step}.payment_pipeline_{name}": value for name, value in figures.items()}
        self.vertices.setdefault(vertex, {}).update(names)

    def _call(self, request: Request) -> Any:
        method, url = request.get_method(), urlsplit(request.full_url)
        self.calls.append(f"{method} {url.path}")
        if not self.answers:
            raise FlinkUnreachable(f"{method} {request.full_url}: Connection refused")
        if method == "PATCH":
            self.state = "CANCELED"
            return None
        if method == "POST":
            assert isinstance(request.data, bytes)
            self.target = json.loads(request.data)["target-directory"]
            return {"request-id": "t1"}
        return self._get(url.path.removeprefix(f"/jobs/{JID}"), parse_qs(url.query))

    def _get(self, path: str, query: dict[str, list[str]]) -> Any:
        answers = {
            "": {"state": self.state, "vertices": [{"id": each} for each in self.vertices]},
            "/jobs/overview": {
                "jobs": [{"jid": JID, "name": self.name, "start-time": 1, "state": self.state}]
            },
            "/jobmanager/config": [{"key": k, "value": v} for k, v in self.keys.items()],
            "/exceptions": {
                "exceptionHistory": {"entries": [{"stacktrace": each} for each in self.failures]}
            },
            "/config": {"execution-config": {"user-config": self.options}},
            "/checkpoints": {"latest": {"completed": self.checkpoint}},
            "/metrics": []
            if self.restarts is None
            else [{"id": "numRestarts", "value": str(self.restarts)}],
            "/savepoints/t1": {
                "status": {"id": "COMPLETED"},
                "operation": {"location": "file:///savepoints/savepoint-1"}
                if self.savepoint_failure is None
                else {"failure-cause": {"stack-trace": self.savepoint_failure}},
            },
        }
        if path not in answers:
            return self._metrics(path.split("/")[2], query)
        return answers[path]

    def _metrics(self, vertex: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        found = self.vertices[vertex]
        if "get" not in query:
            return [{"id": name} for name in (*found, "numRecordsIn")]
        assert query["agg"] == ["sum"]
        return [{"id": name, "sum": found[name]} for name in query["get"][0].split(",")]


def counting(flink: FakeFlink) -> None:
    """Figures of a job that has read 10 records of two partitions."""
    flink.count(
        "v1",
        "ReadLoop",
        records_read=10,
        bytes_read=900,
        kafka_lag_payments_0=7,
        kafka_lag_my_topic_1=5,
        watermark_ms_payments_0=5_000,
        watermark_ms_my_topic_1=2_000,
    )
    flink.count(
        "v2",
        "DeduplicateAndWrite",
        accepted=6,
        duplicate=1,
        rejected=3,
        rejected_late=1,
        rejected_invalid_json=2,
        live_ids_0=4,
        live_ids_1=2,
        state_bytes_0=48,
        state_bytes_1=28,
        latency_ms_up_to_50=4,
        latency_ms_up_to_300=1,
        latency_ms_up_to_more=1,
        latency_ms_sum=40_450,
        appends=3,
        appended_bytes=700,
        append_retries=2,
        bundles=1,
        recovered_shards=2,
        present_rows=9,
    )
    flink.count("v3", "WriteTotals", appends=1, appended_bytes=50)
