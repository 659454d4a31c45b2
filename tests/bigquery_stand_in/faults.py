"""What goes wrong, and when: rules on the calls that reach the stand-in.

    stand_in.faults.fail("AppendRows", grpc.StatusCode.UNAVAILABLE, nth=2)
    stand_in.faults.lose_answer("jobs.insert", when=lambda call: "MERGE" in str(call.request))
    stand_in.faults.hook("BatchCommitWriteStreams", lambda call: os.kill(pid, signal.SIGKILL),
    after=True)

A rule counts the calls of its name that `when` accepts, from the moment it is added; it acts on the
`nth` of them and the `times - 1` next. Names: the RPCs of BigQueryWrite, `AppendRows.connect` for a
new connection, the REST methods (`tables.insert`, `jobs.getQueryResults`), and `jobs.run` for a job
itself (fail and hook only; its request is the text of the query).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc

from tests.bigquery_stand_in.errors import StorageErrorCode


class Kind(Enum):
    """What a rule does to a call."""

    FAIL = "answered with an error, nothing happens"
    FAIL_AFTER = "happens, and is answered with an error"
    LOSE_ANSWER = "happens, then the connection breaks"
    CUT = "the connection breaks, nothing happens"
    DELAY = "happens later"
    ANSWER_TWICE = "happens once, is answered twice (AppendRows only)"
    HOOK = "a function of the test is called before it happens"
    HOOK_AFTER = "a function of the test is called when it has happened, before the answer"


@dataclass(frozen=True)
class Call:
    """One call as a rule sees it. number: counts all calls of this name from 1; request: protobuf
    message, or (method, path, body).
    """

    name: str
    number: int
    request: Any


@dataclass(frozen=True)
class ErrorStyle:
    """How AppendRows and the unary RPCs tell an error that the contract demands.

    abort: end the gRPC stream with the status (else in the answer, AppendRows only); details: with
    the StorageError inside.
    """

    abort: bool = False
    details: bool = True


@dataclass
class Rule:
    """One entry of the plan; `hits` counts the calls that it acted on.

    style: how AppendRows tells the injected error, by default the way of transport errors, which
    end the connection.
    """

    kind: Kind
    name: str
    nth: int = 1
    times: int = 1
    when: Callable[[Call], bool] = lambda call: True
    code: grpc.StatusCode | int = grpc.StatusCode.UNAVAILABLE
    reason: str = "backendError"
    message: str = "injected by the fault plan"
    storage_code: StorageErrorCode | None = None
    style: ErrorStyle = ErrorStyle(abort=True)
    seconds: float = 0.0
    function: Callable[[Call], None] = lambda call: None
    seen: int = 0
    hits: int = 0

    def acts_on(self, call: Call) -> bool:
        if self.name != call.name or not self.when(call):
            return False
        self.seen += 1
        acts = self.nth <= self.seen < self.nth + self.times
        self.hits += acts
        return acts


@dataclass
class FaultPlan:
    """Thread safe. `error_style` is for every error that no rule of its own decides."""

    error_style: ErrorStyle = ErrorStyle()
    calls: Counter[str] = field(default_factory=Counter)
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self,
        name: str,
        code: grpc.StatusCode | int = grpc.StatusCode.UNAVAILABLE,
        *,
        after: bool = False,
        **rule: Any,
    ) -> Rule:
        """Answered with `code`: a gRPC code, or for REST an HTTP status with `reason`. after:
        although it has happened.
        """
        return self.add(Rule(Kind.FAIL_AFTER if after else Kind.FAIL, name, code=code, **rule))

    def lose_answer(self, name: str, **rule: Any) -> Rule:
        """It happens, and the connection breaks before the answer."""
        return self.add(Rule(Kind.LOSE_ANSWER, name, **rule))

    def cut(self, name: str, **rule: Any) -> Rule:
        """The connection breaks before anything happens; on AppendRows all requests behind it in
        the connection are lost too.
        """
        return self.add(Rule(Kind.CUT, name, **rule))

    def delay(self, name: str, seconds: float, **rule: Any) -> Rule:
        """It happens `seconds` later."""
        return self.add(Rule(Kind.DELAY, name, seconds=seconds, **rule))

    def answer_twice(self, **rule: Any) -> Rule:
        """An append is done once and answered twice."""
        return self.add(Rule(Kind.ANSWER_TWICE, "AppendRows", **rule))

    def hook(
        self, name: str, function: Callable[[Call], None], *, after: bool = False, **rule: Any
    ) -> Rule:
        """Calls `function` in the server's thread before it happens, or when it has happened and
        before the answer.
        """
        return self.add(
            Rule(Kind.HOOK_AFTER if after else Kind.HOOK, name, function=function, **rule)
        )

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forgets all rules and goes back to the default style of errors."""
        with self._lock:
            self._rules.clear()
            self.error_style = ErrorStyle()

    def arrive(self, name: str, request: Any) -> tuple[Call, list[Rule]]:
        """Counts the call; the rules that act on it, in the order in which they were added."""
        with self._lock:
            self.calls[name] += 1
            call = Call(name, self.calls[name], request)
            return call, [rule for rule in self._rules if rule.acts_on(call)]
