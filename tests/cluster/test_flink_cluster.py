"""A real Flink cluster on this machine: killed in every way, and nothing is left of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pipeline import cli
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.flink.preconditions import check_cluster
from runners.flink.rest import ENDED
from runners.flink.servers import JOB_SERVER, TASK_MANAGER
from runners.processes import ClusterFailed
from tests.support.child_process import ending_with_this_process
from tests.support.flink_cluster import SETTINGS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SECONDS = 240


class Counter:
    """The job of flink_counter.py, and what it has counted."""

    def __init__(self, folder: Path, cluster: FlinkCluster, file: str = "counted") -> None:
        self._file = folder / file
        self._log = folder / "client.log"
        self._cluster = cluster
        self.clients: list[subprocess.Popen[bytes]] = []

    def submit(self, *arguments: str) -> str:
        """Returns the job's id once Flink knows it."""
        before = {job["jid"] for job in self._cluster.rest.jobs()}
        command = [sys.executable, "-m", "tests.support.flink_counter", str(self._file)]
        endpoint = f"--job_endpoint={self._cluster.job_server_address}"
        with self._log.open("ab") as log:
            client = subprocess.Popen(
                ending_with_this_process([*command, endpoint, *arguments]),
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        self.clients.append(client)

        def new_jobs() -> list[str]:
            assert client.poll() is None, self._log.read_text()[-3000:]
            return [job["jid"] for job in self._cluster.rest.jobs() if job["jid"] not in before]

        wait_for(new_jobs, "the job is submitted")
        return new_jobs()[0]

    def counted(self) -> list[int]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return list(map(int, lines))

    def wait_for_more(self, more: int = 20) -> list[int]:
        """The counts that come after those that are there now."""
        before = len(self.counted())
        wait_for(lambda: len(self.counted()) >= before + more, "the job counts")
        return self.counted()[before:]


def wait_for(reached: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"after {SECONDS} s not true: {what}"
        time.sleep(0.1)


@pytest.fixture
def counter(tmp_path: Path, flink_cluster: FlinkCluster) -> Iterator[Counter]:
    job = Counter(tmp_path, flink_cluster)
    yield job
    for client in job.clients:
        client.kill()
        client.wait(10)


def address(checkpoint: Path | None) -> str:
    assert checkpoint is not None
    return f"--savepoint_path={checkpoint.as_uri()}"


def test_a_job_outlives_every_kill(flink_cluster: FlinkCluster, counter: Counter) -> None:
    rest = flink_cluster.rest
    check_cluster(rest, parallelism=SETTINGS.slots)
    job = counter.submit()
    assert counter.wait_for_more()[:3] == [1, 2, 3]
    asked = rest.checkpoint_configuration(job)
    assert (asked["interval"], asked["min_pause"], asked["max_concurrent"]) == (2000, 1500, 1)
    assert asked["externalization"] == {"enabled": True, "delete_on_cancellation": False}
    assert not asked["unaligned_checkpoints"] and asked["state_backend"].endswith(
        "RocksDBStateBackend"
    )

    seen = counter.counted()[-1]
    wait_for(lambda: rest.checkpoints(job)["counts"]["completed"] >= 2, "two checkpoints")
    flink_cluster.kill_task_manager()
    flink_cluster.start_task_manager()
    restarted = counter.wait_for_more()
    wait_for(lambda: counter.counted()[-1] > seen + 20, "it goes on")
    assert 1 not in restarted, "it went on from a checkpoint"
    assert any("no longer reachable" in cause for cause in rest.exceptions(job))

    done = rest.checkpoints(job)["counts"]["completed"]
    wait_for(lambda: rest.checkpoints(job)["counts"]["completed"] > done, "one checkpoint more")
    flink_cluster.kill_everything()
    assert flink_cluster.running() == []
    checkpoint = flink_cluster.newest_complete_checkpoint()
    flink_cluster.stop()
    flink_cluster.start(SETTINGS)
    assert flink_cluster.newest_complete_checkpoint() == checkpoint

    pool = f"--environment_config={flink_cluster.worker_pool_addresses[0]}"
    rest = flink_cluster.rest
    job = counter.submit(address(checkpoint), "--environment_type=EXTERNAL", pool)
    assert 1 not in counter.wait_for_more(), "it went on from the checkpoint"
    victims = flink_cluster.workers()
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: set(flink_cluster.workers()) - set(victims), "the pool has a new worker")
    assert 1 not in counter.wait_for_more(), "it went on from a checkpoint"
    assert rest.savepoint(job, flink_cluster.savepoints_address).startswith("file:/")
    stopped = rest.stop_with_savepoint(job, flink_cluster.savepoints_address)
    assert rest.job_state(job) == "FINISHED"
    assert counter.clients[-1].wait(60) == 0
    last = counter.counted()[-1]
    counter.submit(f"--savepoint_path={stopped}")
    assert counter.wait_for_more(3)[:3] == [last + 1, last + 2, last + 3], "nothing twice"


def test_a_job_manager_that_starts_again_is_found_by_its_task_managers(
    flink_cluster: FlinkCluster, counter: Counter
) -> None:
    job = counter.submit()
    counter.wait_for_more()
    done = flink_cluster.rest.checkpoints(job)["counts"]["completed"]
    wait_for(
        lambda: flink_cluster.rest.checkpoints(job)["counts"]["completed"] > done, "a checkpoint"
    )
    address_before = flink_cluster.rest_address
    flink_cluster.kill_job_manager()
    flink_cluster.start_job_manager()
    assert flink_cluster.rest_address == address_before
    assert flink_cluster.rest.jobs() == []
    counter.clients.pop().kill()
    counter.submit(address(flink_cluster.newest_complete_checkpoint()))
    assert 1 not in counter.wait_for_more(), "it went on from the checkpoint"


def test_up_status_and_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def flink(*arguments: str) -> tuple[int, str]:
        status = cli.main(["flink", arguments[0], f"--dir={tmp_path / 'c'}", *arguments[1:]])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    sizes = ["--slots=3", "--state_backend=hashmap", "--task_manager_heap=512MiB"]
    sizes.append("--restart_attempts=1")
    try:
        status, shown = flink("up", *sizes, "--worker_pools=1", "--json")
        assert status == 0, shown
        up = json.loads(shown)
        cluster = FlinkCluster(tmp_path / "c")
        assert up["flink_master"] == cluster.rest_address
        assert cluster.rest.overview()["slots-total"] == 3
        assert cluster.rest.configuration()["state.backend.type"] == "hashmap"
        servers = cluster.processes
        status, shown = flink("status")
        assert status == 0 and shown.count(" runs\n") == len(servers) == 4
        assert f"--job_endpoint={up['job_endpoint']}" in shown
        assert f"--environment_config={up['worker_pools'][0]}" in shown
        status, shown = flink("up")
        assert status == 3 and "flink down" in shown
        failing = Counter(tmp_path, cluster, file=".")  # a folder: no line can be written to it
        job = failing.submit()
        assert cluster.rest.wait_for_state(job, ENDED, SECONDS) == "FAILED"
        assert failing.clients[0].wait(60) == 1
        causes = cluster.rest.exceptions(job)
        assert len(causes) == 2 and all("IsADirectoryError" in cause for cause in causes)
        cluster.running(TASK_MANAGER)[0].kill()
        assert "HAS ENDED" in flink("status")[1]
    finally:
        status, shown = flink("down")
    assert status == 0 and "ended 3 servers" in shown
    assert not any(server.runs() for server in servers)
    assert not (tmp_path / "c" / "cluster.json").exists()
    nothing = f"nothing runs in {tmp_path / 'c'}\n"
    assert flink("down") == (0, nothing)
    # What the job has left is shown too: a later `up` could restore it.
    status, shown = flink("status")
    assert status == 0 and shown.startswith(nothing)


@pytest.mark.parametrize("role", [TASK_MANAGER, JOB_SERVER])
def test_a_start_that_fails_says_why_and_leaves_nothing(role: str, tmp_path: Path) -> None:
    main_class = {TASK_MANAGER: "TaskManagerRunner", JOB_SERVER: "FlinkJobServerDriver"}[role]

    def broken(command: Sequence[str]) -> list[str]:
        return ending_with_this_process(
            [part + "Missing" if part.endswith(f".{main_class}") else part for part in command]
        )

    cluster = FlinkCluster(tmp_path, launch=broken)
    with pytest.raises(ClusterFailed, match=f"the {role} has ended: .*ClassNotFound") as failed:
        cluster.start(ClusterSettings())
    assert "\n" not in str(failed.value)
    assert not cluster.exists
    left = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True).stdout
    assert str(tmp_path) not in left
