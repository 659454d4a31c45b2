"""The command line: which command runs, and which exit status it ends with."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline import __version__
from pipeline.failures import WRONG_USAGE, failure_of
from pipeline.interrupt import (
    interrupting_signal,
    interrupts_remembered,
    meaning_of_interrupt,
    only_record_signals,
)
from pipeline.loading import modules_load
from pipeline.logs import TEXT, logged, say_end
from pipeline.options.arguments import value_of
from transforms.model.errors import UsageError

DONE: Final = 0
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM
OUTPUT_CLOSED: Final = 128 + signal.SIGPIPE

_HELP: Final = """usage: payment-pipeline COMMAND [options]

Payments from Kafka, each exactly once, to a table.

commands:
  run       read to the end of the topics and write every payment once; --every=10s: again and
            again; --streaming: for ever
  status    what a streaming job does, and who owns the tables
  stop      end a streaming job and hand the tables over
  check     find out whether a row was lost, doubled or altered
  prune     remove old payments with their runs; what is left can still be proved
  produce   send generated payments to a topic
  preflight find out whether run could start, without writing a payment
  demo      all of it on this machine, with kills on the way; --runner=flink: streaming;
            --runner=spark: bounded runs on a Spark cluster
  flink     a Flink cluster on this machine: up, down, status
  spark     Spark on this machine, for bounded runs: up, down, status

`payment-pipeline COMMAND --help` shows the options of a command; --version the version.
exit status: 0 done, 1 a check failed, 2 wrong usage, 3 refused or stopped and a person must decide,
4 unexpected error, 5 try again later (a file in use, a broker or service that does not answer,
another run that was faster), 6 only a limit of check is exceeded, 130 interrupted by Ctrl-C, 143
terminated by SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Raises nothing but SystemExit, after --help."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _figures.clear()
    with interrupts_remembered(), logged(value_of(arguments, "log_format") or TEXT):
        try:
            return _main(arguments)
        except KeyboardInterrupt:  # a signal that came while the end was about to be said
            return _interrupted(arguments)


def _main(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return OUTPUT_CLOSED
        if interrupting_signal() is not None:
            return _interrupted(arguments)
        failure = failure_of(error)
        raised = traceback.format_exc() if failure.traceback else None
        return _ended(arguments, failure.line, failure.status, raised)


def _output_is_closed() -> bool:
    """Whether who has read standard output is gone, as `| head` is. Nothing more is written."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # it is no file
        return False
    looked = select.poll()
    looked.register(output, 0)
    if not looked.poll(0):
        return False
    # Python flushes once more when it ends
    # (https://docs.python.org/3/library/signal.html#note-on-sigpipe).
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _interrupted(arguments: Sequence[str]) -> int:
    only_record_signals()
    usual = _INTERRUPTED_IN.get("".join(arguments[:1]), "nothing was changed")
    state = meaning_of_interrupt(usual)
    terminated = interrupting_signal() == signal.SIGTERM
    status = TERMINATED if terminated else INTERRUPTED
    return _ended(arguments, f"{'terminated' if terminated else 'interrupted'}: {state}", status)


def _ended(arguments: Sequence[str], line: str, status: int, raised: str | None = None) -> int:
    """Says how the command has ended, with --json on standard output too; returns the status."""
    say_end(line, status, raised)
    if "--json" in arguments:
        known = _figures[-1]() if _figures else {}
        print(json.dumps({"exit_status": status, "error": line, **known}))
    return status


_figures: Final[list[Callable[[], dict[str, Any]]]] = []
"""What the command in hand knows of itself, also when it has not come to its end."""

_INTERRUPTED_IN: Final = {
    "run": "nothing is half done; the next run goes on from the last committed position",
    "prune": "what was begun is finished by the next `prune` or `run`",
    "produce": "some messages were sent",
    "demo": "start it again for the whole of it",
}


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_HELP, file=sys.stderr, end="")
        return WRONG_USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        print(_HELP, end="")
        return DONE
    if name == "--version":
        print(f"payment-pipeline {__version__}")
        return DONE
    if name not in _COMMANDS:
        raise UsageError(f"{name}: there is no such command. Allowed are {', '.join(_COMMANDS)}.")
    return _COMMANDS[name](rest)


# Each command imports what it needs when it is called: Beam alone takes about a second.


def _run(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.options.run_config import run_config
        from pipeline.run.command import run_command
        from pipeline.run.outcome import Outcome

    config = run_config(arguments)
    if config.streaming is not None:
        with modules_load():
            from pipeline.streaming.command import streaming_command
            from pipeline.streaming.outcome import JobOutcome

        job = JobOutcome()
        _figures.append(job.figures)
        return streaming_command(config, outcome=job)
    if config.every_us is not None:
        with modules_load():
            from pipeline.run.every import Since, every_command

        since = Since()
        _figures.append(since.figures)
        every_command(config, since)
    outcome = Outcome()
    _figures.append(outcome.figures)
    return run_command(config, outcome=outcome)


def _check(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.check.command import check_command

    return check_command(arguments)


def _prune(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.prune.command import prune_command

    return prune_command(arguments)


def _produce(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.produce.command import produce_command

    return produce_command(arguments)


def _preflight(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.options.run_config import run_config
        from pipeline.preflight import preflight_command

    return preflight_command(run_config(arguments, "preflight"))


def _status(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.streaming.status_command import status_command

    return status_command(arguments)


def _stop(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.streaming.stop_command import stop_command

    return stop_command(arguments)


def _demo(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.demo.command import demo_command

    return demo_command(arguments)


def _flink(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.flink.command import flink_command

    return flink_command(arguments)


def _spark(arguments: list[str]) -> int:
    with modules_load():
        from pipeline.spark.command import spark_command

    return spark_command(arguments)


_COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "run": _run,
    "status": _status,
    "stop": _stop,
    "check": _check,
    "prune": _prune,
    "produce": _produce,
    "preflight": _preflight,
    "demo": _demo,
    "flink": _flink,
    "spark": _spark,
}
