"""Broken connections of Beam's worker are not printed; errors of our own steps are, once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import grpc
import pytest
from apache_beam.runners import common
from apache_beam.runners.worker import data_plane, sdk_worker

from pipeline.logs import TEXT, logged
from runners.worker_end import broken_connections_hidden, end_worker


class Broken(grpc.RpcError):
    """As gRPC raises it when the other side has ended."""

    def __str__(self) -> str:
        return "<_MultiThreadedRendezvous of RPC that terminated with:\n\tstatus = UNAVAILABLE\n>"


@pytest.fixture(autouse=True)
def _as_the_command_does() -> Iterator[None]:
    with logged(TEXT), broken_connections_hidden():
        yield


BEAM = "/site-packages/apache_beam/runners/worker/data_plane.py"
OURS = "/transforms/destinations/step.py"


def raise_in(file: str, error: Exception) -> None:
    """Raises it in a line of that file."""
    exec(compile("raise error", file, "exec"), {"error": error})


def fails_in(name: str, error: Exception) -> None:
    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail, name=name)
    thread.start()
    thread.join()


def process(error: Exception, file: str = BEAM) -> str | None:
    """Beam's own way of doing a bundle; returns the error that it answers."""
    harness = object.__new__(sdk_worker.SdkHarness)
    harness._responses = sdk_worker.queue.Queue()

    def task() -> None:
        raise_in(file, error)

    request = sdk_worker.beam_fn_api_pb2.InstructionRequest(instruction_id="7")
    harness._execute(task, request)
    return str(harness._responses.get_nowait().error)


@pytest.mark.parametrize("name", ["run_worker_1-1", "read_state", "read_grpc_client_inputs"])
def test_a_thread_of_the_worker_that_loses_its_connection_prints_nothing(name: str, capsys) -> None:
    fails_in(name, Broken())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "error"), [("run_worker_1-1", ValueError("odd")), ("poller", Broken())]
)
def test_a_thread_that_fails_otherwise_is_shown(name: str, error: Exception) -> None:
    shown: list[threading.ExceptHookArgs] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading, "excepthook", shown.append)
        with broken_connections_hidden():
            fails_in(name, error)
    assert [args.exc_value for args in shown] == [error]


@pytest.mark.parametrize(
    "error",
    [
        Broken(),
        RuntimeError("Unknown process bundle instruction id '7'"),
        RuntimeError("Channel closed prematurely."),
    ],
)
def test_a_bundle_that_ends_by_it_is_answered_and_not_shown(error: Exception, capsys) -> None:
    assert str(error).partition("\n")[0] in (process(error) or "")
    assert capsys.readouterr().err == ""


def test_an_error_of_our_own_steps_is_shown_once(capsys) -> None:
    process(ValueError("odd payment"))
    assert capsys.readouterr().err.count("ValueError: odd payment") == 1


def test_an_error_of_ours_that_follows_a_broken_connection_is_shown(capsys) -> None:
    error = ValueError("odd payment")
    error.__context__ = Broken()
    process(error)
    assert "ValueError: odd payment" in capsys.readouterr().err


def test_a_broken_connection_of_a_destination_is_shown(capsys) -> None:
    process(Broken(), OURS)
    assert "status = UNAVAILABLE" in capsys.readouterr().err


@pytest.mark.parametrize("module", [data_plane, common])
def test_beam_logs_only_other_errors(module: ModuleType, capsys) -> None:
    log = logging.getLogger(module.__name__)
    for error in (Broken(), OSError("disk")):
        try:
            raise_in(BEAM, error)
        except (OSError, grpc.RpcError):
            log.exception("Failed to read inputs in the data plane.")
    shown = capsys.readouterr().err
    assert "OSError: disk" in shown and "Rendezvous" not in shown


def test_the_end_of_the_worker_is_waited_for() -> None:
    ends = threading.Event()
    worker = threading.Thread(target=ends.wait, name="run_worker_1-1", daemon=True)
    worker.start()
    assert not end_worker(0.0)
    ends.set()
    assert end_worker(30.0) and not worker.is_alive()


def test_the_steps_of_a_worker_whose_connection_broke_are_torn_down() -> None:
    torn: list[str] = []
    harness = object.__new__(sdk_worker.SdkHarness)
    harness._bundle_processor_cache = SimpleNamespace(shutdown=lambda: torn.append("down"))
    with pytest.raises(AttributeError, match="_control_channel"):
        harness.run()  # it has none, and ends at once
    assert end_worker(30.0) and end_worker(30.0)
    assert torn == ["down"]
