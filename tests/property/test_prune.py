"""Whatever runs and prunes follow each other, and wherever a prune dies: the verdicts are those of
tables that are never pruned, what is left is what lies above the border or has a copy there, and
`check` passes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    payment,
    use,
)
from tests.support.pruned import Kept, Row, expected, on_duckdb
from tests.support.streaming.faults import Killed
from tests.support.streaming.hand_over import DyingDestination
from transforms.destinations.contract.pruned import last_pruned
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError

PARTITIONS = 2

messages = st.lists(
    st.tuples(
        st.integers(0, PARTITIONS - 1),
        st.sampled_from("aabbcdef"),
        st.integers(0, 100),  # minutes before the clock; an hour is the horizon
        st.sampled_from(["payment"] * 6 + ["broken", "marker"]),
    ),
    max_size=6,
)
step = st.fixed_dictionaries(
    {
        "sent": messages,
        "later_us": st.sampled_from([MINUTE_US, 20 * MINUTE_US, HOUR_US, 3 * HOUR_US]),
        "prunes_before": st.sampled_from([None, 0, HOUR_US, 4 * HOUR_US]),
        "grows_us": st.sampled_from([0, 0, 0, HOUR_US]),
        "dies_at": st.none() | st.integers(0, 13),
        "dies_after": st.booleans(),
    }
)


@examples(10)
@given(st.lists(step, min_size=3, max_size=6))
def test_what_is_left_is_what_it_would_be_without_a_prune(steps: list[dict[str, Any]]) -> None:
    kafka, names = InMemoryKafka(), count()
    kafka.create("payments", PARTITIONS)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        for name in ("pruned", "whole"):
            Path(folder, name).mkdir()
        with (
            on_duckdb(kafka, Path(folder, "pruned")) as pruned,
            on_duckdb(kafka, Path(folder, "whole")) as whole,
        ):
            now, gone = NOW_US, set[Row]()
            for each in steps:
                now += each["later_us"]
                pruned.now_us = whole.now_us = now
                for partition, name, minutes, kind in each["sent"]:
                    # Each hour has ids of its own, as copies come soon.
                    hour = f"{name}{now // (2 * HOUR_US)}"
                    pruned.send(partition, _value(kind, hour, now - minutes * MINUTE_US, names))
                _run(pruned, whole, each["grows_us"])
                if each["prunes_before"] is not None:
                    _prune(pruned, now - each["prunes_before"], each)
                assert pruned.failures() == []
                assert pruned.rows() == expected(whole.rows() - gone, _below(pruned))
                gone = whole.rows() - pruned.rows()


def _run(pruned: Kept, whole: Kept, grows_us: int) -> None:
    """Both with the same horizon: a larger one may be refused where rows were pruned."""
    before = pruned.settings
    pruned.settings = replace(before, dedup_horizon_us=before.dedup_horizon_us + grows_us)
    try:
        pruned.run()
    except GuaranteeError as refused:
        assert grows_us and "were pruned" in refused.message
        pruned.settings = before
        pruned.run()
    whole.settings = replace(whole.settings, dedup_horizon_us=pruned.settings.dedup_horizon_us)
    whole.run()


def _value(kind: str, name: str, time_us: int, names: Any) -> Any:
    if kind == "payment":
        return payment(name, time_us)
    return MARKER if kind == "marker" else f"broken {next(names)}".encode()


def _prune(kept: Kept, before_us: int, how: dict[str, Any]) -> None:
    if how["dies_at"] is None:
        kept.prune(before_us)
        return
    try:
        kept.prune(before_us, DyingDestination(kept.real, how["dies_at"], how["dies_after"]))
    except Killed:
        kept.run()  # The next process finishes what was claimed.


def _below(kept: Kept) -> dict[TopicPartition, int]:
    pruned = last_pruned(reversed(kept.real.runs.read()))
    return pruned.below() if pruned else {}
