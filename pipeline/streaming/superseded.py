"""Jobs that a job has taken the tables from: they may write no more, but keep their task slots."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.streaming.flink_job import find_job
from runners.flink.rest import ENDED, FlinkRest
from transforms.model.errors import GuaranteeError

_LOG = logging.getLogger(__name__)


def cancel_superseded(rest: FlinkRest, jobs: Sequence[str]) -> None:
    """Cancels those of the jobs that this cluster has not ended, wherever their workers run.

    Where a worker is dead, Flink restarts such a job; where workers live on, each restart is
    refused, and the worker asks for the same (transforms/stream/stop_on_error.py), also in another
    cluster. jobs: our ids. Raises FlinkUnreachable.
    """
    for job_id in jobs:
        old = find_job(rest, job_id)
        if old is None or old.state() in ENDED:
            continue
        _LOG.info("job %s is superseded, and cancelled in Flink", job_id)
        try:
            rest.cancel(old.jid)
        except TimeoutError as error:
            _LOG.warning(
                "job %s is superseded and writes no more, but has not ended yet (%s): the new job"
                " may wait for its task slots. Flink's page is http://%s",
                job_id,
                error,
                rest.address,
            )


def refuse_superseded(job_id: str, jobs: Sequence[str]) -> None:
    """Raises GuaranteeError where another job has begun since this one: the end of it is no stop.

    jobs: of the chain, oldest first.
    """
    if jobs[-1] != job_id:
        raise GuaranteeError(
            f"job {job_id} was superseded by {jobs[-1]}, which has taken the tables over: it has"
            " ended, and nothing of it is lost. Start one job at a time for a destination; `status`"
            " shows the one that owns it."
        )
