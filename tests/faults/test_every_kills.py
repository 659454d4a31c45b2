"""`run --every` is killed again and again while payments come: each is paid once in the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipeline.produce.message_generator import MessageGenerator
from pipeline.run.every import Since, every_command
from tests.faults.crashing_run import ANY_CALL, STEPS
from tests.faults.dying import ProcessDied
from tests.faults.scenario import Scenario
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, use
from tests.support.kafka_broker import KafkaBroker
from tests.support.whole_runs import each_id_once, failures, table

KILLED = -9
TICKS = 200
IN_EACH_TICK = [name for name in STEPS if name not in ("2 genesis", "6 tell Kafka")]


class Killed:
    """Dies before or after the n-th call of one step, then never again."""

    def __init__(self, step: str, moment: str, call: int, patch: pytest.MonkeyPatch) -> None:
        module, path = STEPS[step]
        target = f"{module}.{path}"
        owner, _, name = target.rpartition(".")
        original = _attribute(owner, name)
        left = [call]

        def dying(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if moment == "before" and left[0] == 0:
                raise ProcessDied
            result = original(*given, **named)
            if moment == "after" and left[0] == 0:
                raise ProcessDied
            return result

        patch.setattr(target, dying)


@contextmanager
def dies() -> Iterator[None]:
    """The process may die within; a runner wraps what its steps raise."""
    try:
        yield
    except (ProcessDied, KeyboardInterrupt):
        pass
    except RuntimeError as error:
        if ProcessDied.__name__ not in str(error):
            raise


def _attribute(owner: str, name: str) -> Any:
    module, found = owner, None
    while found is None:
        try:
            found = __import__(module, fromlist=["_"])
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
    for part in owner[len(module) + 1 :].split(".") if owner != module else []:
        found = getattr(found, part)
    return getattr(found, name)


def test_killed_at_random_steps_over_many_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka, random, path = InMemoryKafka(), Random(1), tmp_path / "payments.duckdb"
    use(kafka, monkeypatch)
    kafka.create("payments", 2)
    sent: Counter[str] = Counter()
    ticks, deaths, now = 0, 0, 0.0

    def sleep(seconds: float) -> None:
        nonlocal ticks, now
        ticks, now = ticks + 1, now + seconds
        if ticks >= TICKS:
            raise KeyboardInterrupt
        for transaction_id in random.choices("abcdefgh", k=random.randrange(3)):
            sent[transaction_id + str(ticks // 10)] += 1
            value = payment(transaction_id + str(ticks // 10), NOW_US + int(now * 1e6))
            kafka.send("payments", random.randrange(2), value)

    settings = config(path, every_us=1_000_000, max_records_per_run=2, json=False)
    while ticks < TICKS:
        with monkeypatch.context() as patch, dies():
            step, moment = random.choice(IN_EACH_TICK), random.choice(["before", "after"])
            Killed(step, moment, random.randrange(1, 12), patch)
            deaths += 1
            every_command(settings, Since(), lambda: now, sleep, lambda: NOW_US + int(now * 1e6))
    with suppress(KeyboardInterrupt):
        every_command(settings, Since(), lambda: now, sleep, lambda: NOW_US + int(now * 1e6))
    assert deaths > 5
    each_id_once(lambda sql: table(path, sql), sent)
    assert failures(path) == []


@pytest.mark.cluster
def test_a_process_killed_at_random_moments(
    kafka_broker: KafkaBroker, fresh_topic: Callable[..., str], tmp_path: Path
) -> None:
    """SIGKILL between any two calls of our own code; a process makes one run, or several."""
    scenario = Scenario(
        kafka_broker.bootstrap_servers,
        fresh_topic(partitions=3),
        tmp_path / "payments.duckdb",
        options=("--max_records_per_run=150", "--every=1s"),
    )
    random = Random(5)
    generator = MessageGenerator(
        7, time.time_ns() // 1000 - 600_000_000, duplicate_rate=0.1, invalid_rate=0.03
    )
    for _ in range(4):
        scenario.send(generator.take(300))
        moment = str(random.randrange(1_000, 12_000))
        status = scenario.run("tests.faults.crashing_run", ANY_CALL, "before", moment)
        assert status == KILLED, scenario.output
        if scenario.database.exists():
            assert "FAILED" not in scenario.check().values(), scenario.output
    once = replace(scenario, options=scenario.options[:1])
    assert once.run() == 0, once.output
    once.holds()
