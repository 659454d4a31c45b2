"""Whether Beam's job server answers, before anything depends on it."""

from __future__ import annotations

from typing import Final

import grpc
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

_ANSWER_SECONDS: Final = 15.0


class JobServerAway(RuntimeError):
    """No job server of Beam answers at the address, or it does not answer any more."""


def check_job_server(address: str, seconds: float = _ANSWER_SECONDS) -> None:
    """Asks the job server which options it knows, as a submission does first.

    address: HOST:PORT. Raises JobServerAway where no job server of Beam answers within
    `seconds`: a submission would wait for it without an end.
    """
    with grpc.insecure_channel(address) as channel:
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
        try:
            jobs.DescribePipelineOptions(
                beam_job_api_pb2.DescribePipelineOptionsRequest(),
                timeout=seconds,
                wait_for_ready=True,
            )
        except grpc.RpcError as error:
            raise JobServerAway(f"no job server of Beam: {error.code().name}") from error
