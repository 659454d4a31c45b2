"""A run that the runner has lost is repeated from its first step, up to a bound."""

from __future__ import annotations

import pytest

from pipeline.run.repeated import PAUSES_SECONDS, repeated
from runners.profile import RunAborted, RunnerAway
from transforms.model.errors import TryAgainLater


class Attempts:
    """Ends as each of `ends` says: an error, or the number of transactions committed by then."""

    def __init__(self, *ends: Exception | int) -> None:
        self.ends = list(ends)
        self.committed = 0
        self.pauses: list[float] = []

    def __call__(self) -> None:
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        self.committed = end

    def play(self) -> None:
        repeated(self, lambda: self.committed, self.pauses.append)


def test_a_run_that_ends_is_not_repeated() -> None:
    attempts = Attempts(1)
    attempts.play()
    assert attempts.committed == 1 and attempts.pauses == []


def test_a_lost_run_is_repeated_with_growing_pauses() -> None:
    attempts = Attempts(RunAborted("x."), RunAborted("y."), 1)
    attempts.play()
    assert attempts.pauses == list(PAUSES_SECONDS[:2]) == sorted(attempts.pauses)


def test_behind_the_last_attempt_it_is_to_be_tried_again_later() -> None:
    attempts = Attempts(*[RunAborted("a worker has ended.")] * 9)
    with pytest.raises(TryAgainLater, match=r"lost 5 times in a row.*a worker has ended"):
        attempts.play()
    assert attempts.pauses == list(PAUSES_SECONDS)
    assert len(attempts.ends) == 9 - 1 - len(PAUSES_SECONDS)


def test_a_transaction_that_is_committed_begins_the_count_anew() -> None:
    attempts = Attempts()

    def attempt() -> None:
        attempts.committed += 1
        if attempts.committed < 9:
            raise RunAborted("x.")

    repeated(attempt, lambda: attempts.committed, attempts.pauses.append)
    assert attempts.pauses == [PAUSES_SECONDS[0]] * 8


def test_a_runner_that_is_away_is_no_lost_run() -> None:
    with pytest.raises(TryAgainLater, match=r"no job server answers\. Nothing of this run"):
        Attempts(RunnerAway("no job server answers.")).play()


def test_any_other_error_is_not_repeated() -> None:
    attempts = Attempts(ValueError("of a step"), 1)
    with pytest.raises(ValueError, match="of a step"):
        attempts.play()
    assert attempts.pauses == []
