"""What a runner may promise, and which of its options would break that. A combination that cannot
keep the guarantee is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class RunnerRefused(RuntimeError):
    """The runner, or an option of it, cannot keep the guarantee: exit status 3. The message says
    why and what to use instead.
    """


class UnknownRunner(ValueError):
    """There is no such runner: wrong usage, exit status 2."""


@dataclass(frozen=True)
class Refusal:
    """An option's value that is refused: `value` None means any value that is not empty or false."""

    option: str
    value: str | None
    reason: str

    def applies(self, options: Mapping[str, Any]) -> bool:
        given = options.get(self.option)
        return bool(given) if self.value is None else given == self.value


@dataclass(frozen=True)
class RunnerProfile:
    """name: as the user says it; beam_runner: what Beam is told; refusals: options that this runner
    must not have.
    """

    name: str
    beam_runner: str
    refusals: tuple[Refusal, ...]

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises RunnerRefused for options (name -> value, defaults included) that cannot keep the
        guarantee.
        """
        for refusal in self.refusals:
            if refusal.applies(options):
                raise RunnerRefused(
                    f"--{refusal.option}={options[refusal.option]} with --runner={self.name}:"
                    f" {refusal.reason}"
                )
