"""A run that adopts a topic dies right before, or right after, each step of the protocol."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.config import AdoptTopic
from tests.faults.crashing_run import STEPS
from tests.faults.dying import ProcessDied
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, run, table
from tests.support.whole_runs import COPIES, IDS, failures

ADOPTING = {"adopt_topics": (AdoptTopic("payments", "new"),), "on_data_loss": "accept"}
NOT_REACHED = ("2 genesis",)
EMPTY_STEPS = ("4 record", "4 prepare", "4 claim, inside", "6 mark committed", "6 tell Kafka")
"""Of a run that adopts a topic without records, beside those before the plan."""


def dying_at(step: str, moment: str, patch: pytest.MonkeyPatch) -> list[str]:
    """Dies at the first call of the step. The list is not empty once it has."""
    module, path = STEPS[step]
    owner: Any = importlib.import_module(module)
    if step == "6 tell Kafka":
        owner, path = InMemoryKafka, "commit_offsets"
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, died = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        if moment == "after":
            original(*arguments, **named)
        died.append(step)
        raise ProcessDied

    patch.setattr(owner, name, dying)
    return died


@pytest.fixture
def moved(kafka: InMemoryKafka, path: Path) -> InMemoryKafka:
    """A topic was read; another one, in another cluster, has a copy of one of its payments."""
    kafka.create("payments", 1, topic_id="old")
    kafka.send("payments", 0, payment("a"), payment("b"))
    run(config(path))
    kafka.cluster = "cluster-2"
    kafka.create("payments", 1, topic_id="new")
    return kafka


def die(path: Path, step: str, moment: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        died = dying_at(step, moment, patch)
        # Beam wraps what a step raises into an error of its own.
        with suppress(Exception):
            run(config(path, **ADOPTING))
        assert died


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", [step for step in STEPS if step not in NOT_REACHED])
def test_an_adoption_that_dies_at_any_step_loses_and_doubles_nothing(
    moved: InMemoryKafka, path: Path, step: str, moment: str
) -> None:
    moved.send("payments", 0, payment("b"), b"broken", payment("c"))
    die(path, step, moment)
    assert failures(path) == []
    moved.send("payments", 0, payment("d", NOW_US))
    run(config(path, **ADOPTING))
    assert table(path, IDS) == [("a",), ("b",), ("c",), ("d",)]
    assert table(path, COPIES) == [("b",)]
    assert table(path, "SELECT kafka_topic, kafka_offset FROM rejected_records") == [
        ("payments#2", 1)
    ]
    assert failures(path) == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", EMPTY_STEPS)
def test_an_adoption_of_an_empty_topic_is_decided_by_its_claim_alone(
    moved: InMemoryKafka, path: Path, step: str, moment: str
) -> None:
    die(path, step, moment)
    assert failures(path) == []
    claimed = table(path, "SELECT COUNT(*) FROM pipeline_runs") == [(3,)]
    assert claimed == (step.startswith("6") or (step, moment) == ("4 prepare", "after"))
    moved.send("payments", 0, payment("b"), payment("c"))
    # Once it is claimed, the flag is not needed any more.
    run(config(path) if claimed else config(path, **ADOPTING))
    assert table(path, IDS) == [("a",), ("b",), ("c",)]
    assert failures(path) == []
