"""Queries and statements as jobs of BigQuery.

A statement is a job with an id that the pipeline chooses, so that it is not done twice when its
answer is lost: the job is looked up by its id instead. A job id is unique in its project: a second
insert is answered 409
(https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    ServerError,
)
from google.api_core.retry import exponential_sleep_generator
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY

from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery.parameters import Parameter, parameter
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.waiting import waiting_for

_TRIES: Final = 10
_CONCURRENT: Final = ("could not serialize access", "too many dml statements outstanding")
"""Texts of errors that mean a conflict of DML statements on one table.

Two statements have changed one row, or 20 are queued for the table already
(https://cloud.google.com/bigquery/docs/data-manipulation-language#update_delete_merge_dml_concurrency).
"""

_QUOTAS: Final = ("quotaExceeded", "rateLimitExceeded")
"""Used up for a while (https://cloud.google.com/bigquery/docs/error-messages)."""

_TOO_MANY_BYTES: Final = "bytesBilledLimitExceeded"

_TOO_FRESH: Final = "streaming buffer"
"""Text of an error that says that a statement would change rows that were written just now."""


class ConcurrentUpdate(Exception):
    """Other statements change the same table at the same moment; this one had no effect.

    https://cloud.google.com/bigquery/docs/data-manipulation-language#dml_statement_conflicts
    """


def fresh_job_id(what: str) -> str:
    """A job id that no project has used yet."""
    return f"payment-pipeline-{what}-{secrets.token_hex(16)}"


class _Sum:
    """What all queries of this process have read: its driver, and bundles of any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.bytes_read = 0
        self.bytes_billed = 0

    def add(self, job: Any) -> None:
        with self._guard:
            self.bytes_read += job.total_bytes_processed or 0
            self.bytes_billed += job.total_bytes_billed or 0


_SUM: Final = _Sum()


class Queries:
    """Runs jobs, and knows what they have read.

    dataset: PROJECT.DATASET; jobs run where it is, unless the client has a location of its own.
    max_bytes_billed: of one query; one that would read more fails before it reads anything, and
    costs nothing.
    """

    def __init__(self, client: bigquery.Client, dataset: str, max_bytes_billed: int) -> None:
        self._client = client
        self._dataset = dataset
        self._location: str | None = client.location
        self._max_bytes_billed = max_bytes_billed
        self._before = _SUM.bytes_read, _SUM.bytes_billed

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Parameter] = ()) -> pa.Table:
        """The answer of a SELECT. parameters: values by name, or BigQuery's parameter objects.

        Raises GuaranteeError, or TryAgainLater where BigQuery does not answer.
        """
        with _explained(self._max_bytes_billed):
            config, where = self._config(parameters), self._where()
            job = self._client.query(
                sql, job_config=config, location=where, retry=_retry(), job_retry=DEFAULT_JOB_RETRY
            )
            rows = job.result(retry=_retry())
            found: pa.Table = rows.to_arrow(create_bqstorage_client=False)
        _SUM.add(job)
        return found

    def execute(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Parameter], job_id: str
    ) -> int:
        """Executes a statement; returns the affected rows of DML, 0 for any other statement.

        The same `job_id` again has no further effect and gives the same answer. Raises
        ConcurrentUpdate; then the job id is used up.
        """
        with _explained(self._max_bytes_billed):
            config, where = self._config(parameters), self._where()
            try:
                job = self._client.query(
                    sql,
                    job_config=config,
                    job_id=job_id,
                    location=where,
                    retry=_retry(),
                    job_retry=None,
                )
            except Conflict:
                # Outside of the US and the EU a job is found by its id and location only.
                job = self._client.get_job(job_id, location=where, retry=_retry())
            job.result(retry=_retry(), job_retry=None)
        _SUM.add(job)
        return int(job.num_dml_affected_rows or 0)

    @property
    def bytes_read(self) -> int:
        """By all queries of this process since the object was made, those of its bundles too."""
        return _SUM.bytes_read - self._before[0]

    @property
    def bytes_billed(self) -> int:
        """As bytes_read: BigQuery rounds up what it bills for each query."""
        return _SUM.bytes_billed - self._before[1]

    def _where(self) -> str:
        """The location of the jobs.

        See https://cloud.google.com/bigquery/docs/locations#specify_locations.
        """
        if self._location is None:
            self._location = str(self._client.get_dataset(self._dataset, retry=_retry()).location)
        return self._location

    def change(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Parameter], what: str
    ) -> int | None:
        """Executes DML that may conflict with other statements; returns the affected rows.

        None when every try met a conflict: then nothing was changed. A lost answer is looked up by
        the job's id. A job that failed by a conflict had no effect, and is tried again under
        another id, after a pause with jitter. what: part of the ids.
        """
        pauses = exponential_sleep_generator(
            bigquery_retry.FIRST_DELAY_SECONDS, bigquery_retry.LONGEST_DELAY_SECONDS
        )
        for _ in range(_TRIES):
            try:
                return self.execute(sql, parameters, fresh_job_id(what))
            except ConcurrentUpdate:
                time.sleep(next(pauses))
        return None

    def _config(
        self, parameters: Mapping[str, Any] | Sequence[Parameter]
    ) -> bigquery.QueryJobConfig:
        named = (
            [parameter(name, value) for name, value in parameters.items()]
            if isinstance(parameters, Mapping)
            else list(parameters)
        )
        return bigquery.QueryJobConfig(
            query_parameters=named,
            maximum_bytes_billed=self._max_bytes_billed,
            use_legacy_sql=False,
        )


def _retry() -> Any:
    """The library's rules of what may be tried again, with the delays of retry.py."""
    return DEFAULT_RETRY.with_delay(
        initial=bigquery_retry.FIRST_DELAY_SECONDS, maximum=bigquery_retry.LONGEST_DELAY_SECONDS
    )


@contextmanager
def _explained(max_bytes_billed: int) -> Iterator[None]:
    """Raises ConcurrentUpdate for a conflict, else GuaranteeError with what to do."""
    with bigquery_retry.reachable("a query"), waiting_for("BigQuery: a query"):
        try:
            yield
        except (BadRequest, Forbidden, NotFound, ServerError) as error:
            if any(text in str(error).lower() for text in _CONCURRENT):
                raise ConcurrentUpdate(str(error)) from error
            reason = _reason(error)
            # Of a query that would read too much the library makes a server's error.
            if isinstance(error, ServerError) and reason != _TOO_MANY_BYTES:
                raise
            passes = reason in _QUOTAS or _TOO_FRESH in error.message
            kind = TryAgainLater if passes else GuaranteeError
            raise kind(
                f"BigQuery refuses a query: {error.message}. {_advice(error, max_bytes_billed)}"
            ) from error


def _reason(error: GoogleAPICallError) -> str | None:
    return next(
        (
            detail["reason"]
            for detail in error.errors
            if isinstance(detail, dict) and "reason" in detail
        ),
        None,
    )


def _advice(error: GoogleAPICallError, max_bytes_billed: int) -> str:
    if _reason(error) == _TOO_MANY_BYTES:
        return (
            f"--maximum_bytes_billed={max_bytes_billed} does not allow more; raise it if the cost"
            " is right."
        )
    if _TOO_FRESH in error.message:
        return (
            "Rows that were written within the last 30 minutes cannot be changed"
            " (https://cloud.google.com/bigquery/docs/data-manipulation-language#limitations): try"
            " again when nothing was written for so long."
        )
    if _reason(error) in _QUOTAS:
        return "The quota fills up again; run later."
    if isinstance(error, Forbidden):
        return bigquery_retry.ROLES
    return "If it repeats, report this line."
