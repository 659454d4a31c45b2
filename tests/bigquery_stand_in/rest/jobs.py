"""Query jobs: a job id is used once and for ever, a requestId for fifteen minutes.

Sources: https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/insert (jobReference.jobId,
409 duplicate) and .../jobs/query (requestId).
"""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import RestFailure, duplicate, invalid, not_found
from tests.bigquery_stand_in.faults import FaultPlan, Kind
from tests.bigquery_stand_in.rest.parameters import read_parameters
from tests.bigquery_stand_in.sql.statements import Outcome, Query, Statements
from tests.bigquery_stand_in.warehouse import Warehouse


@dataclass
class Job:
    """A finished job: statements run while the call that starts them waits. One of outcome and
    failure is set.
    """

    job_id: str
    configuration: dict[str, Any]
    location: str
    started: datetime
    ended: datetime
    outcome: Outcome | None = None
    failure: RestFailure | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def result(self) -> Outcome:
        """Raises RestFailure: how jobs.query and jobs.getQueryResults tell a failed job."""
        if self.failure is not None:
            raise self.failure
        if self.outcome is None:
            raise RestFailure(500, "internalError", f"job {self.job_id} has not finished")
        return self.outcome


class Jobs:
    """Thread safe. An id is taken before the job runs, so of two equal ones at the same time one is
    refused.

    Running a job is a call of its own for the fault plan, `jobs.run`: a fault there is a failed
    job, whose id is used up, not a failed call.
    """

    def __init__(self, warehouse: Warehouse, statements: Statements, faults: FaultPlan) -> None:
        self._warehouse = warehouse
        self._statements = statements
        self._faults = faults
        self._jobs: dict[str, Job] = {}
        self._requests: dict[str, Job] = {}
        self._lock = threading.Lock()

    def insert(self, body: dict[str, Any]) -> Job:
        """jobs.insert. A statement that fails makes a failed job, whose id is used up all the same.
        Raises RestFailure (duplicate).
        """
        configuration = body.get("configuration") or {}
        if "query" not in configuration:
            raise invalid("the stand-in runs query jobs only")
        reference = body.get("jobReference") or {}
        job = self._new(reference.get("jobId"), configuration, reference.get("location"))
        with self._lock:
            if job.job_id in self._jobs:
                raise duplicate(f"Job {self._warehouse.project}:{job.location}.{job.job_id}")
            if not configuration.get("dryRun"):
                self._jobs[job.job_id] = job
        self._run(job)
        return job

    def query(self, body: dict[str, Any]) -> Job:
        """jobs.query. The same requestId with the same request is the same call: it runs once."""
        configuration = {"query": body, "dryRun": body.get("dryRun", False)}
        job = self._new(None, configuration, body.get("location"))
        if request_id := body.get("requestId"):
            key = json.dumps(
                [
                    request_id,
                    *(body.get(name) for name in ("query", "queryParameters", "defaultDataset")),
                ],
                sort_keys=True,
            )
            with self._lock:
                known = self._requests.get(key)
                if known is not None and job.started - known.started < limits.REQUEST_ID_LIFETIME:
                    job = known
                else:
                    known = None
                    self._requests[key] = job
            if known is not None:
                known.done.wait()
                return known
        with self._lock:
            self._jobs[job.job_id] = job
        self._run(job)
        return job

    def get(self, job_id: str) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise not_found(f"Job {self._warehouse.project}:{job_id}")
        job.done.wait()
        return job

    def _new(self, job_id: str | None, configuration: dict[str, Any], location: str | None) -> Job:
        now = self._warehouse.clock()
        return Job(job_id or f"job_{uuid.uuid4().hex}", configuration, location or "US", now, now)

    def _run(self, job: Job) -> None:
        try:
            self._inject(job)
            job.outcome = self._statements.run(_query(job.configuration))
        except RestFailure as failure:
            job.failure = failure
        finally:
            job.ended = self._warehouse.clock()
            job.done.set()

    def _inject(self, job: Job) -> None:
        call, rules = self._faults.arrive("jobs.run", job.configuration["query"].get("query"))
        for rule in rules:
            if rule.kind is Kind.HOOK:
                rule.function(call)
            elif rule.kind is Kind.FAIL:
                raise RestFailure(
                    rule.code if isinstance(rule.code, int) else 503, rule.reason, rule.message
                )


def _query(configuration: dict[str, Any]) -> Query:
    query = configuration["query"]
    if query.get("useLegacySql"):
        raise invalid("the stand-in runs GoogleSQL only: useLegacySql must be false")
    maximum = query.get("maximumBytesBilled")
    return Query(
        query["query"],
        (query.get("defaultDataset") or {}).get("datasetId"),
        read_parameters(query.get("queryParameters") or []),
        int(maximum) if maximum is not None else None,
        bool(configuration.get("dryRun")),
    )
