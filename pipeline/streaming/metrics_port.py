"""--metrics_port: the figures of a job as Prometheus text, from the client.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipeline.streaming.figures import JobFigures
from pipeline.streaming.flink_job import FlinkJob
from pipeline.streaming.job_report import JobReport, report_of
from runners.flink.rest import FlinkUnreachable
from transforms import metrics
from transforms.model.errors import UsageError

_HOST: Final = "127.0.0.1"
_LABELS: Final = {
    metrics.REASON: ("reason",),
    metrics.SHARD: ("shard",),
    metrics.PARTITION: ("topic", "partition"),
}
_IN_THE_HISTOGRAM: Final = (metrics.LATENCY, metrics.LATENCY_SUM)


class ScrapedJob(Collector):
    """What a scrape finds: Flink is asked each time. job: None until there is one."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """now_us: the clock, microseconds since 1970."""
        self.job: FlinkJob | None = None
        self._now_us = now_us

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        yield _gauge("up", "1 when Flink has answered", 0 if report is None else 1)
        if report is None:
            return
        yield _gauge("running", "1 while the job is RUNNING", int(report.state == "RUNNING"))
        yield from _listed(report.figures)
        yield _latency(report.figures)
        yield _watermark_lag(report.figures)
        restarts = CounterMetricFamily(_name("restarts"), "Restarts of the job by Flink.")
        restarts.add_metric((), report.restarts)
        yield restarts
        if report.checkpoint is not None:
            age_us = report.figures.at_us - report.checkpoint.begun_us
            yield _gauge(
                "checkpoint_age_seconds",
                "Since the newest complete checkpoint was begun.",
                max(0, age_us) / 1_000_000,
            )
            yield _gauge("checkpoint_bytes", "Its full size.", report.checkpoint.size)

    def _report(self) -> JobReport | None:
        if self.job is None:
            return None
        try:
            return report_of(self.job, self._now_us())
        except FlinkUnreachable:
            return None


@contextmanager
def serve_metrics(port: int | None, now_us: Callable[[], int]) -> Iterator[ScrapedJob]:
    """Serves what is put into the yielded object. port: None serves nothing.

    Raises UsageError where the port cannot be had.
    """
    scraped = ScrapedJob(now_us)
    if port is None:
        yield scraped
        return
    registry = CollectorRegistry()
    registry.register(scraped)
    try:
        server, thread = start_http_server(port, addr=_HOST, registry=registry)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(
            f"--metrics_port={port}: the port of {_HOST} cannot be had ({error.strerror}). Choose"
            " another one, or end the process that has it. Nothing was changed."
        ) from error
    try:
        yield scraped
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listed(figures: JobFigures) -> Iterator[Metric]:
    """Every name of the list; a counter that has reasons is served by them alone."""
    split = {each.name for each in metrics.METRICS if each.of is not None}
    for each in metrics.METRICS:
        if each.name in _IN_THE_HISTOGRAM or (each.of is None and each.name in split):
            continue
        kind = CounterMetricFamily if each.kind == metrics.COUNTER else GaugeMetricFamily
        labels = _LABELS[each.of] if each.of is not None else ()
        family = kind(_name(each.name), f"In {each.unit}: docs/metrics.md.", labels=labels)
        if each.of is None:
            family.add_metric((), figures.of(each.name))
        else:
            for of, value in figures.gauges(each.name).items():
                family.add_metric(_values(of, labels), value)
        yield family


def _latency(figures: JobFigures) -> Metric:
    """Prometheus wants cumulative counts, and the sum of all values."""
    bounds = [*(str(bound / 1000) for bound in metrics.LATENCY_BOUNDS_MS), "+Inf"]
    buckets = list(zip(bounds, accumulate(figures.latency_counts()), strict=True))
    return HistogramMetricFamily(
        _name("latency_seconds"),
        "From Kafka's timestamp of a payment to its acknowledged append.",
        buckets=buckets,
        sum_value=figures.of(metrics.LATENCY_SUM) / 1000,
    )


def _watermark_lag(figures: JobFigures) -> Metric:
    labels = _LABELS[metrics.PARTITION]
    family = GaugeMetricFamily(
        _name("watermark_lag_seconds"), "Now less the partition's watermark.", labels=labels
    )
    for of, mark_ms in figures.gauges(metrics.WATERMARK_MS).items():
        family.add_metric(_values(of, labels), max(0, figures.at_us / 1_000_000 - mark_ms / 1000))
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_name(name), text, value=value)


def _name(name: str) -> str:
    return f"{metrics.NAMESPACE}_{name}"


def _values(of: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Flink has an underscore between topic and partition."""
    return tuple(of.rsplit("_", len(labels) - 1)) if len(labels) > 1 else (of,)
