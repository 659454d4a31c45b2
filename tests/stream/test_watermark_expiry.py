"""Ids leave the state by event-time timers, on a runner with a watermark: TestStream advances it,
nothing else does.

Under the clockless FnApiRunner every timer fires at the end, so the same assertions would pass with
a broken expiry or fail with a right one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.coders import TupleCoder, VarIntCoder
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from tests.support.payments import MINUTE, SHAPE, Payment, decoded
from transforms.deduplicate.deduplicate_transactions import LAYOUTS, DeduplicateTransactions
from transforms.deduplicate.settings import DedupSettings
from transforms.model.coders import ShardBatchCoder
from transforms.model.elements import ShardOutcome
from transforms.model.fingerprints import split_by_shard
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

HORIZON = 5 * MINUTE


def settings(extra_retention: int = 0, expires: bool = True) -> DedupSettings:
    return DedupSettings(
        secrets.token_hex(8), 1, HORIZON + extra_retention, extra_retention, expires, SHAPE, None
    )


class Verdicts(beam.DoFn):
    """ShardOutcome -> (offset, table)."""

    def process(self, outcome: ShardOutcome) -> Iterator[tuple[int, str]]:
        for table, rows in outcome.tables.items():
            for offset in rows.column("kafka_offset").to_pylist():
                yield offset, table


class Script:
    """Payments and watermarks in the order in which they happen. Offsets count up from 0."""

    def __init__(self) -> None:
        self._stream = TestStream(coder=TupleCoder((VarIntCoder(), ShardBatchCoder())))
        self._stream.advance_watermark_to(Timestamp(micros=0))
        self._offset = 0

    def pays(self, transaction_id: str, event_time: int) -> Script:
        ((shard, batch),) = split_by_shard(
            decoded([Payment(transaction_id, event_time, self._offset)]), 1
        )
        self._offset += 1
        self._stream.add_elements([TimestampedValue((shard, batch), Timestamp(micros=event_time))])
        return self

    def watermark(self, micros: int) -> Script:
        self._stream.advance_watermark_to(Timestamp(micros=micros))
        return self

    def must_lead_to(self, layout: str, dedup: DedupSettings, *tables: str) -> None:
        options = PipelineOptions()
        options.view_as(StandardOptions).streaming = True
        with TestPipeline(runner="BundleBasedDirectRunner", options=options) as pipeline:
            verdicts = (
                pipeline
                | self._stream.advance_watermark_to_infinity()
                | DeduplicateTransactions(layout, dedup)
                | beam.ParDo(Verdicts())
            )
            assert_that(verdicts, equal_to(list(enumerate(tables))))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def one_copy_before_and_one_after_expiry() -> Script:
    # The minute of the payment ends at 11 minutes: there, and not before, the id leaves.
    script = Script().pays("a", 10 * MINUTE)
    script.watermark(11 * MINUTE - 1000).pays("a", 10 * MINUTE + MINUTE - 1)
    return script.watermark(11 * MINUTE).pays("a", 30 * MINUTE)


def test_an_id_is_known_until_the_watermark_reaches_the_end_of_its_minute(layout: str) -> None:
    one_copy_before_and_one_after_expiry().must_lead_to(
        layout, settings(), PAYMENTS, DUPLICATES, PAYMENTS
    )


def test_these_tests_fail_when_ids_never_expire(layout: str) -> None:
    with pytest.raises(Exception, match="Failed assert"):
        one_copy_before_and_one_after_expiry().must_lead_to(
            layout, settings(expires=False), PAYMENTS, DUPLICATES, PAYMENTS
        )


def test_these_tests_fail_when_ids_expire_a_minute_early(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transforms.deduplicate import per_key as deduplicate_per_key
    from transforms.deduplicate import sharded as deduplicate_sharded

    for module in (deduplicate_per_key, deduplicate_sharded):
        monkeypatch.setattr(
            module,
            "timer_timestamp",
            lambda bucket, extra: Timestamp(micros=bucket * MINUTE + extra),
        )
    monkeypatch.setattr(
        deduplicate_sharded,
        "highest_expired_bucket",
        lambda watermark, extra: (watermark - extra) // MINUTE,
    )
    with pytest.raises(Exception, match="Failed assert"):
        one_copy_before_and_one_after_expiry().must_lead_to(
            layout, settings(), PAYMENTS, DUPLICATES, PAYMENTS
        )


def test_a_copy_with_a_later_event_time_keeps_its_id_longer(layout: str) -> None:
    script = Script().pays("a", 10 * MINUTE).pays("a", 14 * MINUTE)
    script.watermark(15 * MINUTE - 1000).pays("a", 16 * MINUTE).watermark(16 * MINUTE).pays(
        "a", 20 * MINUTE
    )
    script.watermark(21 * MINUTE).pays("a", 40 * MINUTE)
    script.must_lead_to(layout, settings(), PAYMENTS, DUPLICATES, DUPLICATES, DUPLICATES, PAYMENTS)


def test_extra_retention_keeps_ids_that_much_longer(layout: str) -> None:
    script = Script().pays("a", 10 * MINUTE).watermark(21 * MINUTE - 1000).pays("a", 10 * MINUTE)
    script.watermark(21 * MINUTE).pays("a", 40 * MINUTE)
    script.must_lead_to(
        layout, settings(extra_retention=10 * MINUTE), PAYMENTS, DUPLICATES, PAYMENTS
    )


def test_each_id_expires_on_its_own(layout: str) -> None:
    script = Script().pays("a", 10 * MINUTE).pays("b", 12 * MINUTE)
    script.watermark(12 * MINUTE).pays("a", 20 * MINUTE).pays("b", 20 * MINUTE)
    script.must_lead_to(layout, settings(), PAYMENTS, PAYMENTS, PAYMENTS, DUPLICATES)


def test_nothing_waits_for_the_watermark(layout: str) -> None:
    """A first sighting goes out at once: with the watermark far behind, and before any later
    element.
    """
    Script().pays("a", 10 * MINUTE).pays("b", 90 * MINUTE).must_lead_to(
        layout, settings(), PAYMENTS, PAYMENTS
    )


def test_the_state_does_not_grow_ids_behind_the_watermark_leave_a_shard_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transforms.deduplicate import sharded as deduplicate_sharded

    heads: list[int] = []
    original = deduplicate_sharded.encode_head

    def remembered(head):  # type: ignore[no-untyped-def]
        heads.append(sum(head.live.values()))
        return original(head)

    monkeypatch.setattr(deduplicate_sharded, "encode_head", remembered)
    script = Script()
    for minute in range(0, 60, 10):
        script.pays(f"id-{minute}", minute * MINUTE).watermark((minute + 10) * MINUTE - 1000)
    script.must_lead_to("sharded", settings(), *[PAYMENTS] * 6)
    assert max(heads) == 1
    assert heads[-1] == 0


def test_a_record_behind_what_the_shard_has_expired_is_rejected_by_the_backstop() -> None:
    """Its split should have judged it late. If one ever does not, the shard says so instead of
    accepting a payment twice.
    """
    script = Script().pays("a", 10 * MINUTE).watermark(11 * MINUTE).pays("a", 10 * MINUTE)
    script.must_lead_to("sharded", settings(), PAYMENTS, REJECTED)
