"""The list of metrics: what the document says, and what a bounded run counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.metrics.metric import MetricsFilter
from grpc import StatusCode

from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run
from tests.support.payments import Payment, decoded
from tests.unit.destinations.contract.write_streams import rows
from transforms import metrics
from transforms.destinations.appends import TableAppends
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.write_streams import OffsetOutOfRange
from transforms.metrics import METRICS, Metric
from transforms.model.tables import GAPS, PAYMENTS
from transforms.stream.polling import Polling
from transforms.stream.refusals import ProveOrResend

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
PACKAGES = ("transforms", "pipeline", "runners")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Name -> what was counted or shown, in the place of Beam's metrics."""
    values: dict[str, int] = {}

    class Cell:
        def __init__(self, namespace: str, name: str) -> None:
            assert namespace == metrics.NAMESPACE
            self._name = name

        def inc(self, number: int) -> None:
            values[self._name] = values.get(self._name, 0) + number

        def set(self, value: int) -> None:
            values[self._name] = value

    class Cells:
        counter = gauge = Cell

    monkeypatch.setattr(metrics, "Metrics", Cells)
    return values


def documented() -> list[tuple[str, str, str]]:
    """(name with what stands behind the dot, kind, unit) of each row of the document's table."""
    table = DOCUMENT.partition("## In Flink")[0]
    rows = re.findall(r"^\| `([\w.:]+)` \| (\w+) \| ([^|]+) \|", table, re.MULTILINE)
    return [(name, kind, unit.strip()) for name, kind, unit in rows]


def in_the_document(metric: Metric) -> str:
    return metric.name if metric.of is None else f"{metric.name}.{metric.of.upper()}"


def test_the_document_lists_every_metric_in_order() -> None:
    assert documented() == [(in_the_document(each), each.kind, each.unit) for each in METRICS]


def test_no_other_file_makes_a_metric_of_its_own() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    makers = [file for file in files if "apache_beam.metrics" in file.read_text()]
    assert makers == [ROOT / "transforms" / "metrics.py"]


def test_a_bounded_run_counts_under_the_same_names(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Any] = []
    original = beam.Pipeline.run

    def run_and_keep(pipeline: beam.Pipeline, *arguments: Any, **named: Any) -> Any:
        results.append(original(pipeline, *arguments, **named))
        return results[-1]

    monkeypatch.setattr(beam.Pipeline, "run", run_and_keep)
    kafka.create("payments", 1)
    values = [payment("a"), payment("b"), payment("a"), b"broken", None]
    kafka.send("payments", 0, *values)
    run(config(path, shards=1))
    found = results[0].metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    counters = {each.key.metric.name: each.committed for each in found["counters"]}
    gauges = {each.key.metric.name: each.committed.value for each in found["gauges"]}
    appended = counters.pop(metrics.APPENDED_BYTES)
    assert counters == {
        metrics.RECORDS_READ: 5,
        metrics.BYTES_READ: sum(len(value or b"") for value in values),
        metrics.ACCEPTED: 2,
        metrics.DUPLICATE: 1,
        metrics.REJECTED: 2,
        "rejected.invalid_json": 1,
        "rejected.null_value": 1,
        metrics.APPENDS: 3,
    }
    assert appended > 0
    # What its ids take is in the record of the run: a shard knows only what the run adds.
    assert gauges == {}
    names = {each.name for each in METRICS}
    assert {name.partition(".")[0] for name in (*counters, *gauges)} <= names


def test_an_append_is_counted_once_it_is_acknowledged(counted: dict[str, int]) -> None:
    payments = decoded([Payment("a", 0, 0), Payment("b", 1, 1)]).payments
    answers: list[Any] = [OffsetOutOfRange("s", "an append before it is missing"), None]

    class Stream:
        def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
            class Answer:
                def wait(self) -> int:
                    if error := answers.pop(0):
                        raise error
                    return offset + batch.num_rows

            return Answer()

    policy = ProveOrResend(lambda table, batch: 0, Polling(tries=3, seconds=0.0))
    one = TableAppends(Stream(), PAYMENTS, policy, "s")  # type: ignore[arg-type]
    one.add(payments)
    one.send()
    assert counted == {}
    one.settle(2)
    assert counted == {
        metrics.APPENDS: 1,
        metrics.APPENDED_BYTES: payments.nbytes,
        metrics.APPEND_RETRIES: 1,
    }


def test_what_a_broken_connection_to_bigquery_makes_it_send_again_is_counted(
    stand_in: BigQueryStandIn, bigquery_destination: BigQueryDestination, counted: dict[str, int]
) -> None:
    streams = bigquery_destination.streams
    stream = streams.create(GAPS)
    stand_in.faults.fail("AppendRows", StatusCode.UNAVAILABLE, nth=2)
    first = streams.send(stream, 0, rows(0, 1))
    assert first.wait() == 2
    assert counted == {}
    second = streams.send(stream, 2, rows(2, 3))
    assert second.wait() == 4
    assert counted == {metrics.APPEND_RETRIES: 1}


def test_below_a_second_a_latency_is_known_to_a_tenth() -> None:
    within = [bound for bound in metrics.LATENCY_BOUNDS_MS if 100 <= bound <= 1_000]
    assert within == list(range(100, 1_001, 100))
    assert list(metrics.LATENCY_BOUNDS_MS) == sorted(metrics.LATENCY_BOUNDS_MS)


def test_latencies_are_counted_by_their_bound(counted: dict[str, int]) -> None:
    at_us = 1_000_000_000
    stamps = pa.array(
        [at_us - 50_000, at_us - 50_001_000, at_us - 51_000, at_us + 5_000, None],
        pa.timestamp("us", "UTC"),
    )
    metrics.count_latencies([stamps], at_us)
    assert counted == {
        "latency_ms_up_to.50": 2,
        "latency_ms_up_to.100": 1,
        "latency_ms_up_to.more": 1,
        metrics.LATENCY_SUM: 50 + 51 + 50_001,
    }
