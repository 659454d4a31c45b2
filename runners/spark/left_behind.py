"""Jobs in hand whose client was killed: nobody waits for them, and some never end.

With LOOPBACK a job ends by itself once Spark misses the worker, which was in the client. But Spark
waits for the first call of a worker that it has asked for without a bound, so where the client was
killed in between, the job would hold the job server, which has one Spark for one job, for ever:
ExternalEnvironmentFactory of
https://github.com/apache/beam/blob/v2.62.0/runners/java-fn-execution/src/main/java/org/apache/beam/runners/fnexecution/environment/ExternalEnvironmentFactory.java
"""

from __future__ import annotations

import socket
from typing import Any, Final

import grpc
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
    beam_runner_api_pb2,
)

from runners.spark.job import WORKERS_OF, cancel_job, jobs_in_hand

_HOST: Final = "127.0.0.1"
_CONNECT_SECONDS: Final = 1.0


def cancel_left_behind(address: str, seconds: float) -> tuple[int, int]:
    """Cancels the LOOPBACK jobs of this program whose client has ended.

    Returns how many others are in hand, and how many were cancelled. What those have written is in
    no record of the ledger. Of clients in another network than this process nothing is known, so
    their jobs are others. address: HOST:PORT of the job server. seconds: for each answer. Raises
    grpc.RpcError where it does not answer.
    """
    others = cancelled = 0
    with grpc.insecure_channel(address) as channel:
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
        for job_id in jobs_in_hand(channel, seconds):
            request = beam_job_api_pb2.GetJobPipelineRequest(job_id=job_id)
            ports = _worker_ports(jobs.GetPipeline(request, timeout=seconds).pipeline)
            if ports and not any(map(_may_listen, ports)):
                cancel_job(channel, job_id)
                cancelled += 1
            else:
                others += 1
    return others, cancelled


def _worker_ports(pipeline: Any) -> list[int]:
    """Where the clients that are the workers of the job listen: those of this program, in this
    network.
    """
    ports = []
    for environment in pipeline.components.environments.values():
        if environment.urn == common_urns.environments.EXTERNAL.urn:
            payload = beam_runner_api_pb2.ExternalPayload.FromString(environment.payload)
            if payload.params.items() >= WORKERS_OF.items():
                ports.append(int(payload.endpoint.url.rpartition(":")[2]))
    return ports


def _may_listen(port: int) -> bool:
    """False only where it is certain that no process does: a client that is stopped for a while,
    or too busy to answer, has not ended.
    """
    try:
        with socket.create_connection((_HOST, port), timeout=_CONNECT_SECONDS):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
