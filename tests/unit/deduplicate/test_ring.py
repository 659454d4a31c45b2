"""The sixteen cells arrive as one tuple, in the order of their slots, however Beam calls."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec, get_dofn_specs, on_timer
from apache_beam.utils.timestamp import Timestamp

from tests.support.stateful_double import StatefulDouble
from transforms.deduplicate.ring import with_ring
from transforms.deduplicate.shard_state import SLOTS

CELLS = [f"ids_{slot:02}" for slot in range(SLOTS)]


class SlotsInUse(beam.DoFn):
    """(key, slot) -> (key, slots that hold something), when the timer of the key fires."""

    EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

    @with_ring
    def process(
        self,
        element: tuple[str, int],
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        ring: Any = None,
    ) -> None:
        _, slot = element
        ring[slot].add(b"%d" % slot)
        expiry.set(Timestamp(seconds=1))

    @on_timer(EXPIRY)
    @with_ring
    def expire(
        self,
        key: str = beam.DoFn.KeyParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        ring: Any = None,
    ) -> Iterator[tuple[str, list[int]]]:
        assert timestamp == 1
        yield key, [int(blob) for bag in ring for blob in bag.read()]


def test_every_cell_is_declared_once_under_its_name() -> None:
    state, timers = get_dofn_specs(SlotsInUse())
    assert sorted(spec.name for spec in state) == CELLS
    assert len(timers) == 1
    names = list(inspect.signature(SlotsInUse().process).parameters)
    assert names == ["element", "expiry", *CELLS]


def test_the_method_keeps_its_name_and_its_types() -> None:
    assert SlotsInUse.expire.__name__ == "expire"
    assert (
        inspect.signature(SlotsInUse.expire).return_annotation == "Iterator[tuple[str, list[int]]]"
    )


def test_arguments_by_position_and_by_name_in_any_order_are_the_same() -> None:
    class Echo:
        @with_ring
        def method(self, first: int, second: int = 0, ring: Any = None) -> Any:
            return first, second, ring

    cells = range(SLOTS)
    by_name = dict(reversed(list(zip(CELLS, cells, strict=True))))
    expected = (1, 2, tuple(cells))
    assert Echo().method(1, 2, *cells) == expected
    assert Echo().method(**by_name, second=2, first=1) == expected
    assert Echo().method(1, **by_name) == (1, 0, tuple(cells)), "an argument left out"


def test_an_argument_that_is_missing_or_unknown_is_an_error() -> None:
    @with_ring
    def method(ring: Any) -> Any:
        return ring

    with pytest.raises(TypeError, match="ids_16"):
        method(*range(SLOTS), ids_16=None)
    with pytest.raises(TypeError, match="too many"):
        method(*range(SLOTS + 1))


def test_beam_stores_and_reads_the_ring_slot_by_slot() -> None:
    with TestPipeline(runner="FnApiRunner", options=PipelineOptions()) as pipeline:
        found = (
            pipeline
            | beam.Create([("a", 0), ("a", 15), ("b", 7)], reshuffle=False)
            | beam.ParDo(SlotsInUse()).with_output_types(tuple[str, list[int]])
        )
        assert_that(found, equal_to([("a", [0, 15]), ("b", [7])]))


def test_the_double_of_the_property_tests_sees_the_cells() -> None:
    double = StatefulDouble(SlotsInUse())
    double.bundle([("a", 3), ("a", 15)])
    assert double.state["a"] == {"ids_03": [b"3"], "ids_15": [b"15"]}
