"""The lines of a benchmark: a figure, and what is to be reached beside it."""

from __future__ import annotations

from collections.abc import Sequence


def say(name: str, figure: str, to_reach: str = "") -> None:
    """Prints a line at once, so that a run that is cut off has shown what it knew."""
    goal = f"   [to reach: {to_reach}]" if to_reach else ""
    print(f"{name:<40} {figure}{goal}", flush=True)


def say_ratio(rate: float | None, other: float, of_what: str, at_least: float) -> None:
    """rate: None where it could not be told."""
    figure = "unknown" if rate is None else f"{rate / other:.2f} {of_what}"
    say("", figure, f"at least {at_least:.2f}")


def in_words(seconds: Sequence[float]) -> str:
    """The middle of them, the least and the most."""
    found = sorted(seconds)
    return f"{found[len(found) // 2]:.2f} s, {found[0]:.2f} to {found[-1]:.2f} ({len(found)})"
