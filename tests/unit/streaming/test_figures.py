"""The counters of a job: from Flink's names to what a person and a script read."""

from __future__ import annotations

import json

from pipeline.streaming.figures import JobFigures, one_line, rate
from pipeline.streaming.flink_job import FlinkJob
from tests.support.fake_flink import JID, FakeFlink, counting

SECOND_US = 1_000_000


def figures(at_us: int = 12 * SECOND_US, **values: float) -> JobFigures:
    return JobFigures(values, at_us)


def counted() -> JobFigures:
    flink = FakeFlink()
    counting(flink)
    return JobFigures(FlinkJob(flink, JID).figures(), 12 * SECOND_US)


def test_gauges_of_shards_and_partitions_are_added_up() -> None:
    found = counted()
    assert (found.lag, found.live_ids, found.state_bytes) == (12, 6, 76)
    assert found.gauges("kafka_lag") == {"my_topic_1": 5, "payments_0": 7}
    assert found.rejected == {"invalid_json": 2, "late": 1}


def test_the_lowest_watermark_counts() -> None:
    found = counted()
    assert (found.watermark_us, found.watermark_lag_us) == (2 * SECOND_US, 10 * SECOND_US)
    assert figures().watermark_us is None
    assert figures().watermark_lag_us is None
    assert figures(0, watermark_ms_payments_0=5).watermark_lag_us == 0


def test_a_latency_is_the_bound_that_a_share_of_the_payments_lies_under() -> None:
    found = counted()
    assert (found.latency_ms(0.5), found.latency_ms(0.8)) == (50, 300)
    assert found.latency_ms(0.99) is None
    assert figures().latency_ms(0.5) is None
    assert sum(found.latency_counts()) == 6


def test_the_json_has_every_counter() -> None:
    found = counted().as_json()
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "records_read": 10,
        "bytes_read": 900,
        "accepted": 6,
        "duplicates": 1,
        "rejected": 3,
        "rejected_by_reason": {"invalid_json": 2, "late": 1},
        "late_behind_expiry": 0,
        "live_ids": 6,
        "state_bytes": 76,
        "kafka_lag": {"my_topic_1": 5, "payments_0": 7},
        "watermark_us": 2 * SECOND_US,
        "watermark_lag_us": 10 * SECOND_US,
        "latency_ms_p50": 50,
        "latency_ms_p99": None,
        "appends": 4,
        "appended_bytes": 750,
        "append_retries": 2,
        "bundles": 1,
        "recovered_shards": 2,
        "present_rows": 9,
    }


def test_a_rate_is_never_negative_and_needs_time_to_pass() -> None:
    before, now = figures(0, records_read=100), figures(2 * SECOND_US, records_read=500)
    assert rate(before, now) == 200
    assert rate(now, figures(4 * SECOND_US, records_read=10)) == 0
    assert rate(now, now) == 0


def test_one_line_leaves_out_a_rate_that_is_not_known() -> None:
    line = one_line("RUNNING", None, counted())
    assert line == (
        "RUNNING: 12 waiting in Kafka, 6 accepted, 1 duplicate, 3 rejected, 6 live ids,"
        " watermark 10 s back"
    )
    before = figures(11 * SECOND_US, records_read=8)
    assert one_line("RUNNING", before, counted()).startswith("RUNNING: 2/s, 12 waiting")
    assert one_line("CREATED", None, figures(read=0)).endswith("0 rejected, no watermark")
    assert figures(read=0).as_json()["live_ids"] is None


def test_where_flink_has_no_figure_the_line_shows_no_zeros() -> None:
    assert one_line("RUNNING", counted(), figures()) == "RUNNING: Flink shows no figures"
