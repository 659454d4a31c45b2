"""The profile of a runner: its name, and the options that it must refuse.

A combination of runner and options that cannot keep the guarantee is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class RunnerRefused(RuntimeError):
    """The runner, or an option of it, cannot keep the guarantee: exit status 3.

    The message says why, and what to use instead.
    """


class UnknownRunner(ValueError):
    """There is no such runner: wrong usage, exit status 2."""


@dataclass(frozen=True)
class Refusal:
    """A refused value of an option. value: None means every value but empty and false."""

    option: str
    value: str | None
    reason: str

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether the options (name -> value) have the refused value."""
        given = options.get(self.option)
        return bool(given) if self.value is None else given == self.value


@dataclass(frozen=True)
class RunnerProfile:
    """One runner.

    name: the value of --runner. beam_runner: the runner's name in Beam. refusals: values of options
    that are refused with this runner.
    """

    name: str
    beam_runner: str
    refusals: tuple[Refusal, ...]

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises RunnerRefused for a value that cannot keep the guarantee.

        options: name -> value, defaults included.
        """
        for refusal in self.refusals:
            if refusal.applies(options):
                raise RunnerRefused(
                    f"--{refusal.option}={options[refusal.option]} with --runner={self.name}:"
                    f" {refusal.reason}"
                )
