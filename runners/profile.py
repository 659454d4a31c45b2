"""The profile of a runner: its name, the options that it sets, and those that it must refuse.

A combination of runner and options that cannot keep the guarantee is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import Pipeline


class RunnerRefused(RuntimeError):
    """The runner, or an option of it, cannot keep the guarantee: exit status 3.

    The message says why, and what to use instead.
    """


class RunnerMisused(ValueError):
    """An option that the runner needs is missing or malformed: wrong usage, exit status 2."""


class UnknownRunner(RunnerMisused):
    """There is no such runner."""


class RunnerAway(RuntimeError):
    """The runner does not answer, or is busy with another client's work: to be tried again later.

    The message names the option with its address, and what to do.
    """


class RunAborted(RuntimeError):
    """The runner has lost a run by no error of its steps: the run can be tried again at once.

    The message is one sentence, with the place of the log that says more.
    """


Progress = Callable[[], object]
"""What has been done so far, as a value that changes while the run goes on."""


Build = Callable[[Pipeline], None]
"""Adds all steps to an empty pipeline."""


def run_to_the_end(build: Build, options: PipelineOptions, progress: Progress) -> None:
    """Runs a bounded pipeline as Beam does. Raises what the runner raises."""
    pipeline = Pipeline(options=options)
    build(pipeline)
    pipeline.run().wait_until_finish()


@dataclass(frozen=True)
class Refusal:
    """A refused value of an option, or of one that may be given several times.

    value: None means every value but empty and false.
    """

    option: str
    value: str | None
    reason: str

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether the options (name -> value) have the refused value."""
        given = options.get(self.option)
        if self.value is None:
            return bool(given)
        return self.value in given if isinstance(given, list) else given == self.value


@dataclass(frozen=True)
class RunnerFlag:
    """An option of the runner itself, which Beam's Python SDK does not declare.

    set_to: the value that is sent when the user gives none; None sends nothing. allowed: whether a
    value that the user gives can keep the guarantee; reason: why not, and what to do. The bare
    flag means "true".
    """

    name: str
    help: str
    set_to: str | None = None
    allowed: Callable[[str], bool] = lambda value: True
    reason: str = ""


@dataclass(frozen=True)
class RunnerProfile:
    """One runner.

    name: the value of --runner. beam_runner: the runner's name in Beam. refusals: values of options
    that are refused with this runner. flags: options of the runner that Beam does not declare.
    defaults: values of Beam's options, by name, where the user gives none. misused: what is
    missing, in one line, or None. in_one_process: whether all Python code of a run is in the
    process that starts it. experiments: Beam's, always sent. bundle_per_key: whether a step with
    state has a bundle for each key, so that many keys take for ever. spreads_input: whether one
    task would read everything, unless what is created is spread. run: runs a bounded pipeline to
    its end; raises RunnerAway, RunAborted, or an error that holds what a step has raised. look:
    what a server that it needs says, in one line; raises RunnerAway; None where it needs none.
    session: a context around all runs of a process, and the pauses between them.
    """

    name: str
    beam_runner: str
    refusals: tuple[Refusal, ...]
    flags: tuple[RunnerFlag, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    misused: Callable[[Mapping[str, Any]], str | None] = lambda options: None
    in_one_process: Callable[[Mapping[str, Any]], bool] = lambda options: True
    experiments: tuple[str, ...] = ()
    bundle_per_key: bool = False
    spreads_input: bool = False
    run: Callable[[Build, PipelineOptions, Progress], None] = run_to_the_end
    look: Callable[[PipelineOptions], str] | None = None
    session: Callable[[], AbstractContextManager[None]] = nullcontext

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises RunnerRefused for a value that cannot keep the guarantee, or RunnerMisused.

        options: name -> value, defaults included.
        """
        for refusal in self.refusals:
            if refusal.applies(options):
                value = refusal.value or options[refusal.option]
                shown = "" if value is True else f"={value}"
                raise RunnerRefused(
                    f"--{refusal.option}{shown} with --runner={self.name}: {refusal.reason}"
                )
        for flag in self.flags:
            given = options.get(flag.name)
            if given is not None and not flag.allowed(given):
                raise RunnerRefused(
                    f"--{flag.name}={given} with --runner={self.name}: {flag.reason}"
                )
        if said := self.misused(options):
            raise RunnerMisused(said)

    def arguments(self, options: Mapping[str, Any]) -> list[str]:
        """What is sent to Beam beside the user's own arguments.

        options: name -> value as the user gave them; None where there is none.
        """
        ours = {**{flag.name: flag.set_to for flag in self.flags}, **self.defaults}
        return [
            *(
                f"--{name}={value}"
                for name, value in ours.items()
                if value is not None and options.get(name) is None
            ),
            *(f"--experiments={name}" for name in self.experiments),
        ]
