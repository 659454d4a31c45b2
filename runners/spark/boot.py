"""Starts a Python worker for Spark: what Beam's boot program in Go does, as far as it is needed.

`--environment_type=PROCESS` names a command that each executor starts with the addresses of its
services: https://github.com/apache/beam/blob/v2.77.0/sdks/python/container/boot.go. Nothing is
installed at the start, so the pipeline and Beam must be there, in the versions of the client.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf import json_format, text_format

from runners.beam_loading import without_connectors

with without_connectors():
    from apache_beam.portability.api import (
        beam_provision_api_pb2,
        beam_provision_api_pb2_grpc,
        endpoints_pb2,
    )
    from apache_beam.runners.worker import sdk_worker_main
    from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor

_ANSWER_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5


def main(arguments: Sequence[str]) -> None:
    """Asks the executor for the job's options, and serves as its worker until it ends."""
    parser = argparse.ArgumentParser(prog="python -m runners.spark.boot", description=__doc__)
    for name in ("id", "provision_endpoint", "logging_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}")
    given, _ = parser.parse_known_args(arguments)
    _end_with_parent(os.getppid())
    info = _provision_info(given.provision_endpoint, given.id)
    os.environ.update(
        WORKER_ID=given.id,
        PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
        LOGGING_API_SERVICE_DESCRIPTOR=_address(given.logging_endpoint, info.logging_endpoint),
        CONTROL_API_SERVICE_DESCRIPTOR=_address(given.control_endpoint, info.control_endpoint),
        RUNNER_CAPABILITIES=" ".join(info.runner_capabilities),
    )
    if info.HasField("status_endpoint"):
        os.environ["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(
            info.status_endpoint
        )
    sdk_worker_main.main(sys.argv[:1])


def _provision_info(address: str, worker: str) -> Any:
    channel = grpc.intercept_channel(grpc.insecure_channel(address), WorkerIdInterceptor(worker))
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    return stub.GetProvisionInfo(request, timeout=_ANSWER_SECONDS, wait_for_ready=True).info


def _address(given: str | None, provisioned: Any) -> str:
    """An ApiServiceDescriptor as text."""
    text: str = text_format.MessageToString(
        endpoints_pb2.ApiServiceDescriptor(url=given or provisioned.url)
    )
    return text


def _end_with_parent(parent: int) -> None:
    """Ends this process when the executor that has started it ends, however that one ends.

    Linux could say so by a signal, but it ties it to the thread that has started the process, and
    the executor's threads come and go.
    """

    def look() -> None:
        waits = threading.Event()
        while not waits.wait(_LOOK_SECONDS):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="ends with its parent", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
