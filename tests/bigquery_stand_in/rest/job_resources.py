"""Jobs and pages of their results as REST resources.

Sources: https://cloud.google.com/bigquery/docs/reference/rest/v2/Job and
.../rest/v2/jobs/getQueryResults
"""

from __future__ import annotations

from typing import Any, Final

from tests.bigquery_stand_in.errors import invalid
from tests.bigquery_stand_in.rest.jobs import Job
from tests.bigquery_stand_in.rest.result_rows import encode_rows
from tests.bigquery_stand_in.sql.statements import Outcome

MAX_PAGE_ROWS: Final = 20_000
"""The service cuts pages at about 10 MB; a number of rows does the same for clients."""

_TRUE: Final = ("true", "True", "1", True)


def job_resource(job: Job, project: str) -> dict[str, Any]:
    query = {
        key: value
        for key, value in job.configuration["query"].items()
        if key not in ("requestId", "maxResults", "timeoutMs", "formatOptions")
    }
    if job.outcome is not None and job.outcome.fields:
        # Results stand in an anonymous table; only its name is in the resource, pages come
        # from getQueryResults.
        query.setdefault(
            "destinationTable",
            {"projectId": project, "datasetId": "_anonymous", "tableId": f"anon_{job.job_id}"},
        )
    status: dict[str, Any] = {"state": "DONE"}
    if job.failure is not None:
        status |= {"errorResult": job.failure.error(), "errors": [job.failure.error()]}
    return {
        "kind": "bigquery#job",
        "id": f"{project}:{job.location}.{job.job_id}",
        "etag": job.job_id,
        "jobReference": _reference(job, project),
        "configuration": {"jobType": "QUERY", **job.configuration, "query": query},
        "status": status,
        "statistics": _statistics(job),
    }


def _statistics(job: Job) -> dict[str, Any]:
    statistics: dict[str, Any] = {
        name: str(int(at.timestamp() * 1000)) for name, at in _times(job).items()
    }
    outcome = job.outcome
    if outcome is None:
        return statistics
    processed, billed = str(outcome.bytes_processed), str(outcome.bytes_billed)
    query: dict[str, Any] = {
        "statementType": outcome.kind,
        "totalBytesProcessed": processed,
        "totalBytesBilled": billed,
        "cacheHit": False,
    }
    if outcome.affected is not None:
        query["numDmlAffectedRows"] = str(outcome.affected)
        counts = {
            "INSERT": "insertedRowCount",
            "UPDATE": "updatedRowCount",
            "DELETE": "deletedRowCount",
        }
        if outcome.kind in counts:
            query["dmlStats"] = {counts[outcome.kind]: str(outcome.affected)}
    if outcome.fields:
        query["schema"] = {"fields": outcome.fields}
    return {**statistics, "totalBytesProcessed": processed, "query": query}


def _times(job: Job) -> dict[str, Any]:
    return {"creationTime": job.started, "startTime": job.started, "endTime": job.ended}


def query_results(job: Job, project: str, options: dict[str, Any]) -> dict[str, Any]:
    """jobs.query and jobs.getQueryResults. options: maxResults, pageToken, startIndex, int64
    timestamps. Raises RestFailure of a failed job.
    """
    outcome = job.result()
    resource: dict[str, Any] = {
        "kind": "bigquery#getQueryResultsResponse",
        "jobReference": _reference(job, project),
        "jobComplete": True,
        "totalBytesProcessed": str(outcome.bytes_processed),
        "totalBytesBilled": str(outcome.bytes_billed),
        "cacheHit": False,
        "statementType": outcome.kind,
        "location": job.location,
    }
    if outcome.affected is not None:
        resource["numDmlAffectedRows"] = str(outcome.affected)
        resource["totalRows"] = "0"
    elif outcome.fields:
        resource |= {
            "schema": {"fields": outcome.fields},
            "totalRows": str(len(outcome.rows)),
            **_page(outcome, options),
        }
    return resource


def _page(outcome: Outcome, options: dict[str, Any]) -> dict[str, Any]:
    start, end = page_bounds(len(outcome.rows), options)
    page: dict[str, Any] = {
        "rows": encode_rows(outcome.rows[start:end], outcome.fields, int64_timestamps(options))
    }
    if end < len(outcome.rows):
        page["pageToken"] = str(end)
    return page


def page_bounds(total: int, options: dict[str, Any]) -> tuple[int, int]:
    """(first, behind the last) row of the page that the options ask for."""
    try:
        start = int(options.get("pageToken") or options.get("startIndex") or 0)
        size = min(int(options.get("maxResults", MAX_PAGE_ROWS)), MAX_PAGE_ROWS)
    except ValueError as error:
        raise invalid(f"Invalid page: {error}") from error
    return start, min(start + size, total)


def int64_timestamps(options: dict[str, Any]) -> bool:
    nested = options.get("formatOptions") or {}
    return (
        options.get("formatOptions.useInt64Timestamp") or nested.get("useInt64Timestamp")
    ) in _TRUE


def _reference(job: Job, project: str) -> dict[str, str]:
    return {"projectId": project, "jobId": job.job_id, "location": job.location}
