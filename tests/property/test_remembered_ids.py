"""Whatever runs follow each other, what is remembered is what the tables would answer.

Topics are named or not, horizons grow, layouts and shards change, runs die at any step, and other
processes run in between.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run import command
from tests.support.examples import examples
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)
from tests.support.remembered_ids import ComparedWithTables, in_another_process
from tests.support.whole_runs import failures

TOPICS = ("A", "B")

messages = st.lists(
    st.tuples(
        st.sampled_from(TOPICS),
        st.sampled_from("abcdef"),
        st.integers(-5, 130),  # minutes before the clock
    ),
    max_size=6,
)
step = st.fixed_dictionaries(
    {
        "sent": messages,
        "later_us": st.sampled_from([0, MINUTE_US, 20 * MINUTE_US, 2 * HOUR_US]),
        "topics": st.sampled_from([TOPICS, TOPICS, ("A",), ("B",)]),
        "horizon_us": st.sampled_from([0, 0, 0, HOUR_US]),  # by how much it grows
        "at_once": st.sampled_from([1, 2, 1000]),
        "shards": st.sampled_from([1, 3, 16]),
        "layout": st.sampled_from(["sharded", "sharded", "sharded", "per_key"]),
        "dies_in": st.sampled_from([None, None, None, "read_and_write", "commit"]),
        # Two machines with a folder each take turns; a process may be a new one, and one of them
        # may know nothing of ids.
        "machine": st.sampled_from([0, 0, 0, 1]),
        "is_new_process": st.sampled_from([False, False, True]),
        "is_an_older_version": st.sampled_from([False, False, False, True]),
        # Else they have the ids by files of the command alone.
        "workers_here": st.sampled_from([True, True, False]),
        "damage": st.sampled_from([None, None, None, "remove", "cut", "flip"]),
    }
)


class Died(BaseException):
    """The process is gone."""


@examples(15)
@given(st.lists(step, min_size=2, max_size=6))
def test_what_is_remembered_is_what_the_tables_say(steps: list[dict[str, Any]]) -> None:
    kafka, now, horizon = InMemoryKafka(), NOW_US, HOUR_US
    for topic in TOPICS:
        kafka.create(topic, 1)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        path = Path(folder, "payments.duckdb")

        def process(machine: int, workers_here: bool = True) -> ComparedWithTables:
            machine_folder = Path(folder, f"machine {machine}")
            return ComparedWithTables(f"duckdb:{path}", machine_folder, workers_here)

        processes = [process(0), process(1)]
        for number, each in enumerate(steps):
            now, horizon = now + each["later_us"], horizon + each["horizon_us"]
            for topic, transaction_id, minutes in each["sent"]:
                kafka.send(topic, 0, payment(transaction_id, now - minutes * MINUTE_US))
            settings = config(
                path,
                topics=each["topics"],
                dedup_horizon_us=horizon,
                max_records_per_run=each["at_once"],
                shards=each["shards"],
                dedup_layout=each["layout"],
            )
            machine = each["machine"]
            if each["is_new_process"]:
                processes[machine] = process(machine, each["workers_here"])
            damage(Path(folder, f"machine {machine}"), each["damage"], number)
            ids = None if each["is_an_older_version"] else processes[machine]
            with patch.context() as killed:
                if ids is not None and not ids.workers_here:
                    read_and_write = in_another_process(command.read_and_write)
                    killed.setattr(command, "read_and_write", read_and_write)
                # Not the first: positions must be written down.
                if number and each["dies_in"]:
                    killed.setattr(command, each["dies_in"], _die)
                with suppress(Died):
                    run(settings, now, ids=ids)
        run(config(path, topics=TOPICS, dedup_horizon_us=horizon), now, ids=process(0))
        assert failures(path) == []


def damage(folder: Path, how: str | None, which: int) -> None:
    """Removes a file, cuts it, or changes a bit of it."""
    files = sorted(folder.glob("*")) if folder.exists() else []
    if how is None or not files:
        return
    file = files[which % len(files)]
    content = file.read_bytes()
    at = which * 37 % len(content)
    if how == "remove":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:at])
    else:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def _die(*_: Any) -> None:
    raise Died
