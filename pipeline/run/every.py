"""`run --every=10s`: run after run in one process, for people without a cluster.

Each run is one of `run`, with all its steps; what it can take over from the one before it does
(kept.py). It ends by a signal, or with the status of an error that does not pass by itself.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from pipeline.counted import counted
from pipeline.failures import TRY_AGAIN_LATER, failure_of
from pipeline.interrupt import finish_before_interrupt, interrupt_means, stop_if_interrupted
from pipeline.logs import shows_bar
from pipeline.options.config import RunConfig
from pipeline.options.quantities import format_duration
from pipeline.run.command import run_to_the_end
from pipeline.run.every_cost import check_every
from pipeline.run.kept import KeptBetweenRuns
from pipeline.run.outcome import Outcome
from pipeline.run.summary import (
    NAME_OF_ROWS,
    describe_rows,
    note_figures,
    print_notes,
    print_summary,
    rows_of,
)
from transforms.destinations.open import open_destination
from transforms.model.moments import moment_in_words
from transforms.read import reader_pool

_LOG = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS: Final = 300.0
"""Between two tries of a run that could not begin or go on, where the interval is shorter."""

_WHEN_INTERRUPTED: Final = (
    "what was committed is whole, and nothing else is visible; start the same command again, and it"
    " goes on from there"
)


@dataclass
class Since:
    """What has happened since the process began; it does not grow.

    tries_in_a_row: that ended with 'try again later'. notes: that were said last.
    """

    runs: int = 0
    transactions: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAME_OF_ROWS, 0))
    tries_in_a_row: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Counts what a run has committed."""
        self.transactions += len(outcome.committed)
        for table, rows in rows_of(outcome.committed, outcome.notes).items():
            self.rows[table] += rows

    def figures(self) -> dict[str, Any]:
        """For the line of JSON at the end."""
        return {
            "runs": self.runs,
            "transactions": self.transactions,
            **{NAME_OF_ROWS[table]: rows for table, rows in self.rows.items()},
        }


def every_command(
    config: RunConfig,
    since: Since,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> NoReturn:
    """Runs at each multiple of --every, until a signal or an error ends it.

    since: is filled. clock: monotonic, in seconds; now_us: the present, microseconds since 1970. A
    run that takes longer than the interval leaves out the ticks that it has missed. Only 'try again
    later' is repeated, with pauses that double up to LONGEST_PAUSE_SECONDS, or to the interval
    where that is longer; any other error is raised.
    """
    assert config.every_us is not None
    interval = config.every_us / 1e6
    interrupt_means(_WHEN_INTERRUPTED)
    kept = KeptBetweenRuns(config, keeps_connection=True)
    said = f"a run every {format_duration(config.every_us)}, until SIGTERM or Ctrl-C"
    if shows_bar() and not config.json:
        print(said, flush=True)
    else:
        _LOG.info(said)
    started = clock()
    destination = open_destination(config.destination, **config.destination_options)
    if destination.small_run is not None:
        small, allowed = destination.small_run, destination.streams_per_hour
        _LOG.info("%s: %s", destination.name, check_every(config.every_us, small, allowed))
    is_open = destination.keeps_others_out
    with ExitStack() as stack:
        stack.callback(_sum_up, config, since)
        stack.callback(kept.close)
        stack.enter_context(config.runner.session())
        stack.enter_context(reader_pool.READERS.kept())
        while True:
            outcome = Outcome()
            try:
                if not is_open:
                    stack.enter_context(destination)
                    is_open = True
                if not kept.nothing_is_new(now_us):
                    began_us = now_us()
                    # A signal of a supervisor lets the transaction in hand end; Ctrl-C does not.
                    run_to_the_end(
                        config,
                        destination,
                        now_us,
                        outcome,
                        kept,
                        lambda: finish_before_interrupt((signal.SIGTERM,)),
                    )
                    kept.came_to(outcome.runs, outcome.states, began_us)
            except KeyboardInterrupt:
                _say_committed(config, outcome, since)
                raise
            except Exception as error:
                _say_committed(config, outcome, since)
                failure = failure_of(error)
                if failure.status != TRY_AGAIN_LATER:
                    raise
                pause = _pause(interval, since.tries_in_a_row)
                since.tries_in_a_row += 1
                _LOG.warning("%s (this process does, in %.0f s)", failure.line, pause)
            else:
                since.runs += 1
                since.tries_in_a_row = 0
                since.add(outcome)
                _say(config, outcome, since)
                pause = _until_next_tick(interval, clock() - started)
            # The runner may have swallowed what the signal has raised.
            stop_if_interrupted()
            sleep(pause)


def _sum_up(config: RunConfig, since: Since) -> None:
    """What the process has done, when it ends; with --json it is in the last object."""
    if not config.json:
        figures = since.figures()
        print(
            f"{counted(figures['runs'], 'run')},"
            f" {counted(figures['transactions'], 'transaction')}: {describe_rows(figures)}"
        )


def _pause(interval: float, tries_in_a_row: int) -> float:
    """Seconds until a run is tried again."""
    longest = max(interval, LONGEST_PAUSE_SECONDS)
    return float(min(longest, interval * 2 ** min(tries_in_a_row, 30)))


def _until_next_tick(interval: float, elapsed: float) -> float:
    """Seconds until the next multiple of the interval. elapsed: since the first run began."""
    return interval - elapsed % interval


def _say_committed(config: RunConfig, outcome: Outcome, since: Since) -> None:
    """Of a run that has not come to its end."""
    if outcome.committed:
        since.add(outcome)
        _say(config, outcome, since)


def _say(config: RunConfig, outcome: Outcome, since: Since) -> None:
    """A line for each run that has recorded something, of JSON or in words; then also notes, where
    they are new.
    """
    figures = outcome.figures()
    if config.json:
        if outcome.committed:
            print_summary(figures, as_json=True)
        return
    if outcome.committed:
        rows = ", ".join(f"{figures[name]:,} {name}" for name in NAME_OF_ROWS.values())
        print(f"{moment_in_words(outcome.committed[-1].plan_time)[:19]}Z: {rows}", flush=True)
    notes = {**note_figures(outcome.notes), "topics_not_named": _named(figures)}
    if notes != since.notes:
        since.notes = notes
        print_notes(figures)


def _named(figures: dict[str, Any]) -> list[str]:
    """What waits in a topic that is not named changes all the time, so it makes no note new."""
    return [topic["topic"] for topic in figures["topics_not_named"]]
