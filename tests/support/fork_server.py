"""Makes processes of `python -m MODULE` that have imported already what a command needs.

Two seconds of CPU go into the imports of one command, Beam's above all, and tests that kill
commands start hundreds. This program imports, and then only forks: it never uses gRPC, of whose
threads a child would have half of the state (tests/support/child_process.py). A child has a session
of its own, and an end of its own: it can be killed.

`python -m tests.support.fork_server FD` serves a socket (SOCK_SEQPACKET). A request is the JSON of
`Wanted` with three descriptors: standard output and standard error of the command, and where it
writes its pid and, later, the server its exit status, a line each.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import selectors
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from pipeline.process_end import end_process
from tests.support.child_process import end_with

REQUEST_BYTES: Final = 1 << 16

IMPORTED: Final = (
    "pipeline.run.every",
    "pipeline.run.outcome",
    "pipeline.options.run_config",
    "pipeline.check.command",
    "pipeline.streaming.command",
    "pipeline.streaming.stop_command",
    "transforms.destinations.duckdb.destination",
    "transforms.destinations.bigquery.destination",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.worker.worker_pool_main",
)


class Wanted(msgspec.Struct):
    """`python -m module *arguments` with these variables, in the folder of the server."""

    module: str
    arguments: Sequence[str]
    variables: Mapping[str, str]


def serve(server: socket.socket) -> None:
    """Until the other end is closed."""
    parent = os.getpid()
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not server:
                    selector.unregister(key.fileobj)
                    _say_end(int(key.fd), *key.data)
                    continue
                request, descriptors, _, _ = socket.recv_fds(server, REQUEST_BYTES, 3)
                if not request:
                    return
                *outputs, answers = descriptors
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    server.close()
                    end_with(parent)
                    os.setsid()
                    # Not before it has a session: who knows the pid may kill its process group.
                    os.write(answers, b"%d\n" % os.getpid())
                    os.close(answers)
                    _become(msgspec.json.decode(request, type=Wanted), outputs)
                for output in outputs:
                    os.close(output)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _say_end(pidfd: int, pid: int, answers: int) -> None:
    os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(answers, b"%d\n" % status)
    os.close(answers)


def _become(wanted: Wanted, outputs: list[int]) -> None:
    """Never returns."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *outputs)):
        os.dup2(descriptor, number)
    # As an interpreter makes them whose output is no terminal.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )
    os.environ.clear()
    os.environ.update(wanted.variables)
    sys.argv = [wanted.module, *wanted.arguments]
    gc.unfreeze()
    gc.enable()
    end_process(_status_of(wanted.module))


def _status_of(module: str) -> int:
    """Runs the module as an interpreter does."""
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    return status


def main(descriptor: int) -> None:
    """Imports, and then serves."""
    for name in IMPORTED:
        importlib.import_module(name)
    # What was imported stays: a collection in a child would only copy its pages.
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]))
