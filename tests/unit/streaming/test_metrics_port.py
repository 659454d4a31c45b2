"""--metrics_port: Prometheus text from the client, as a scrape gets it."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli import main
from pipeline.failures import WRONG_USAGE
from pipeline.streaming.flink_job import FlinkJob
from pipeline.streaming.metrics_port import serve_metrics
from runners.ports import free_ports
from tests.support.fake_flink import JID, FakeFlink, counting
from transforms.metrics import COUNTER, GAUGE, METRICS
from transforms.model.errors import UsageError

NOW_US = 12_000_000


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(sample, its labels) -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("payment_pipeline_"), tuple(sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def flink() -> FakeFlink:
    double = FakeFlink()
    counting(double)
    double.restarts = 2
    double.checkpoint = {"trigger_timestamp": 9_000, "state_size": 4_096}
    return double


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def test_every_figure_is_served(flink: FakeFlink, port: int) -> None:
    with serve_metrics(port, lambda: NOW_US) as scraped:
        scraped.job = FlinkJob(flink, JID)
        found = scrape(port)
    partition = (("partition", "1"), ("topic", "my_topic"))
    assert {
        ("up", ()): 1,
        ("running", ()): 1,
        ("records_read_total", ()): 10,
        ("rejected_total", (("reason", "late"),)): 1,
        ("rejected_total", (("reason", "invalid_json"),)): 2,
        ("appends_total", ()): 4,
        ("live_ids", (("shard", "0"),)): 4,
        ("state_bytes", (("shard", "1"),)): 28,
        ("kafka_lag", partition): 5,
        ("watermark_ms", partition): 2_000,
        ("watermark_lag_seconds", partition): 10,
        ("restarts_total", ()): 2,
        ("checkpoint_age_seconds", ()): 3,
        ("checkpoint_bytes", ()): 4_096,
    }.items() <= found.items()
    names = {name for name, _ in found}
    for metric in METRICS:
        if metric.kind == GAUGE:
            assert metric.name in names
        elif not metric.name.startswith("latency"):
            assert f"{metric.name}_total" in names
    assert {metric.kind for metric in METRICS} == {COUNTER, GAUGE}
    assert ("rejected_total", ()) not in found


def test_latency_is_a_histogram(flink: FakeFlink, port: int) -> None:
    with serve_metrics(port, lambda: NOW_US) as scraped:
        scraped.job = FlinkJob(flink, JID)
        found = scrape(port)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "latency_seconds_bucket"
    }
    assert (buckets["0.05"], buckets["0.2"], buckets["0.3"]) == (4, 4, 5)
    assert (buckets["30.0"], buckets["+Inf"]) == (5, 6)
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["latency_seconds_count", ()] == 6
    assert found["latency_seconds_sum", ()] == 40.45


def test_without_an_answer_of_flink_only_that_is_served(flink: FakeFlink, port: int) -> None:
    with serve_metrics(port, lambda: NOW_US) as scraped:
        assert scrape(port) == {("up", ()): 0}
        scraped.job = FlinkJob(flink, JID)
        flink.answers = False
        assert scrape(port) == {("up", ()): 0}
        flink.answers, flink.state = True, "RESTARTING"
        assert scrape(port)["running", ()] == 0


def test_a_port_in_use_is_refused_before_the_job_begins(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        refused = pytest.raises(UsageError, match=f"--metrics_port={port}: .*in use.* another one")
        with refused, serve_metrics(port, lambda: NOW_US):
            raise AssertionError("the job has begun")
    with serve_metrics(port, lambda: NOW_US):
        assert scrape(port) == {("up", ()): 0}


def test_the_command_ends_with_2_and_has_changed_nothing(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "payments.duckdb"
    arguments = [
        "--streaming", "--runner=FlinkRunner", "--flink_master=localhost:1",
        "--job_endpoint=localhost:1", "--bootstrap_servers=localhost:1", "--topic=payments",
        f"--destination=duckdb:{file}", f"--metrics_port={port}",
    ]  # fmt: skip
    with socket.create_server(("127.0.0.1", port)):
        assert main(["run", *arguments]) == WRONG_USAGE
    assert f"--metrics_port={port}" in capsys.readouterr().err
    assert not file.exists()


def test_the_port_ends_with_the_client_and_is_on_this_machine_only(port: int) -> None:
    with serve_metrics(port, lambda: NOW_US), pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=10)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_without_the_option_nothing_is_served() -> None:
    with serve_metrics(None, lambda: NOW_US) as scraped:
        scraped.job = FlinkJob(FakeFlink(), JID)
