"""Random histories of a topic that is written, read, created again and adopted."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.options.config import AdoptTopic
from pipeline.run import commit as commit_step
from tests.faults.dying import ProcessDied
from tests.support.examples import examples
from tests.support.in_memory_kafka import (
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
    use,
)
from tests.support.whole_runs import each_id_once, expire, failures

COORDINATES = """SELECT kafka_topic, kafka_partition, kafka_offset FROM payment_transactions
UNION ALL SELECT kafka_topic, kafka_partition, kafka_offset FROM duplicate_transactions
ORDER BY ALL"""


@dataclass(frozen=True)
class Step:
    """What happens between two moments at which the tables are looked at.

    recreated: partitions of the new topic, None: it stays. unread: what the old one gets last, and
    loses. dies: after so many tables, None: it does not; expires: and its streams are deleted then.
    """

    recreated: int | None
    cluster: str
    unread: list[str]
    sent: list[tuple[int, str, int]]
    at_once: int
    dies: int | None
    expires: bool


steps = st.builds(
    Step,
    recreated=st.sampled_from([None, None, 1, 2, 3]),
    cluster=st.sampled_from(["cluster-1", "cluster-2"]),
    unread=st.lists(st.sampled_from("abcdefgh"), max_size=2),
    # Partition, id, age in minutes: all within the horizon of an hour.
    sent=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("abcdefgh"), st.integers(0, 20)), max_size=6
    ),
    at_once=st.sampled_from([1, 3, 1000]),
    dies=st.sampled_from([None, None, 0, 1, 2, 3]),
    expires=st.booleans(),
)


@examples(12)
@given(st.lists(steps, min_size=1, max_size=4))
def test_what_was_read_of_every_generation_has_one_row_and_no_id_is_paid_twice(
    history: list[Step],
) -> None:
    kafka, read, expected = InMemoryKafka(), Counter[str](), []
    kafka.create("payments", 2, topic_id="id-1")
    generation, flags = 1, ()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        path = Path(folder, "payments.duckdb")
        run(config(path))
        for step in history:
            if step.recreated is not None:
                for key in step.unread:
                    kafka.send("payments", 0, payment(key))
                generation += 1
                kafka.cluster = step.cluster
                kafka.create("payments", step.recreated, topic_id=f"id-{generation}")
                flags = (AdoptTopic("payments", f"id-{generation}"),)
            log = kafka.topics["payments"].partitions
            for wanted, key, age in step.sent:
                partition = wanted % len(log)
                name = "payments" if generation == 1 else f"payments#{generation}"
                expected.append((name, partition, len(log[partition].records)))
                kafka.send("payments", partition, payment(key, NOW_US - age * MINUTE_US))
                read[key] += 1
            settings = config(
                path, adopt_topics=flags, on_data_loss="accept", max_records_per_run=step.at_once
            )
            if step.dies is not None:
                with pytest.MonkeyPatch.context() as dying, suppress(ProcessDied):
                    die_after(step.dies, dying)
                    run(settings)
                assert failures(path) == []
                if step.expires:
                    expire(path)
            run(settings)
            assert table(path, COORDINATES) == sorted(expected)
            each_id_once(lambda sql: table(path, sql), read)
            assert failures(path) == []


def die_after(commits: int, patch: pytest.MonkeyPatch) -> None:
    """The process dies at a table, or at the mark, behind so many tables."""
    original, left = commit_step.commit_table, [commits]

    def dying(*arguments: object) -> None:
        if not left[0]:
            raise ProcessDied
        left[0] -= 1
        original(*arguments)  # type: ignore[arg-type]

    def at_the_mark(*_: object) -> None:
        raise ProcessDied

    patch.setattr(commit_step, "commit_table", dying)
    patch.setattr(commit_step, "mark", at_the_mark)
