"""A server that starts Python workers for Flink or Spark on this machine: `python -m ... PORT`.

Beam's own (apache_beam.runners.worker.worker_pool_main) listens on all interfaces, and starts code
for all who ask. This one listens on 127.0.0.1 only. Its workers keep no state cache.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


def main(port: int) -> None:
    """Serves until the process is ended."""
    logging.basicConfig(level=logging.INFO)
    # The servicer starts `python`, as it is found on PATH: it must be this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
        BeamFnExternalWorkerPoolServicer(use_process=True, data_buffer_time_limit_ms=-1), server
    )
    if not server.add_insecure_port(f"127.0.0.1:{port}"):
        raise OSError(f"port {port} of 127.0.0.1 is in use")
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
