"""Destinations that fail on demand; each fault is named like the failure that it stands for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from transforms.destinations.contract.write_streams import OffsetAlreadyExists, StreamError

STEPS = ("create_stream", "swap_shards", "finalize_stream", "rows_above", "read_shards", "send")
"""Calls of the protocol that a kill can stand before or after."""


class Killed(Exception):
    """The process ends here. Only the runner of the test may catch it."""


@dataclass
class Kill:
    """At the `at`-th call of `step` (from 0): before its effect, or after it, the answer lost."""

    step: str
    at: int
    after: bool


@dataclass
class Network:
    """Appends on their way. Those of a killed process may still arrive, later, in their order per
    stream.
    """

    in_flight: list[Callable[[], Any]] = field(default_factory=list)

    def deliver(self, appends: int) -> None:
        for _ in range(min(appends, len(self.in_flight))):
            append = self.in_flight.pop(0)
            # The process that sent it is dead: nothing receives a refusal.
            with suppress(StreamError):
                append()


class Delayed:
    """An append whose effect happens when it is waited for, or when the network delivers it."""

    def __init__(self, network: Network, effect: Callable[[], int]) -> None:
        self._network = network
        self._effect = effect
        self._outcome: int | Exception | None = None
        network.in_flight.append(self.arrive)

    def arrive(self) -> None:
        if self._outcome is None:
            try:
                self._outcome = self._effect()
            except Exception as error:
                self._outcome = error
                raise

    def wait(self) -> int:
        while self._outcome is None:
            # A refusal is raised where that append is waited for.
            with suppress(Exception):
                self._network.in_flight.pop(0)()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class Part:
    """A part of the destination, some of whose calls are steps."""

    def __init__(self, real: Any, **steps: Callable[..., Any]) -> None:
        self._real = real
        self.__dict__.update(steps)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@dataclass
class UnreliableDestination:
    """The destination as one process sees it. kill: where this process ends. lost_answers: sends
    (by number) whose answer is lost: they are retried by the client, and come back as
    OffsetAlreadyExists.
    """

    real: Any
    network: Network = field(default_factory=Network)
    kill: Kill | None = None
    lost_answers: Sequence[int] = ()
    hidden_looks: int = 0
    """Looks at the tables that do not show the newest row yet."""
    calls: dict[str, int] = field(default_factory=dict)
    dead: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def _step(self, step: str, effect: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed("dead already")
        with self._guard:
            number = self.calls[step] = self.calls.get(step, -1) + 1
        here = self.kill is not None and (self.kill.step, self.kill.at) == (step, number)
        if here and self.kill is not None and not self.kill.after:
            self.dead = True
            raise Killed(f"before {step} {number}")
        result = effect()
        if here:
            self.dead = True
            raise Killed(f"after {step} {number}")
        return result

    @property
    def streams(self) -> Any:
        return Part(
            self.real.streams,
            create=self.create_stream,
            send=self.send,
            finalize=self.finalize_stream,
        )

    @property
    def shards(self) -> Any:
        return Part(self.real.shards, read=self.read_shards, swap=self.swap_shards)

    @property
    def rows(self) -> Any:
        return Part(self.real.rows, rows_above=self.rows_above)

    def create_stream(self, table: str, kind: str) -> str:
        stream: str = self._step("create_stream", lambda: self.real.streams.create(table, kind))
        return stream

    def swap_shards(self, job: Any, seen: Any, rows: Any) -> bool:
        done: bool = self._step("swap_shards", lambda: self.real.shards.swap(job, seen, rows))
        return done

    def read_shards(self, shards: Any) -> Any:
        return self._step("read_shards", lambda: self.real.shards.read(shards))

    def finalize_stream(self, stream: str) -> int:
        rows: int = self._step("finalize_stream", lambda: self.real.streams.finalize(stream))
        return rows

    def rows_above(self, shards: int, floors: Any, oldest: int | None) -> pa.Table:
        found: pa.Table = self._step(
            "rows_above", lambda: self.real.rows.rows_above(shards, floors, oldest)
        )
        if self.hidden_looks and found.num_rows:
            self.hidden_looks -= 1
            return found.slice(0, found.num_rows - 1)
        return found

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Any:
        def effect() -> int:
            behind: int = self.real.streams.send(stream, offset, rows).wait()
            if number in self.lost_answers:
                raise OffsetAlreadyExists(stream, "retried after a lost answer")
            return behind

        number = self.calls.get("send", -1) + 1
        return self._step("send", lambda: Delayed(self.network, effect))
