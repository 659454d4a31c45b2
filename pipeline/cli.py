"""The command line: which command runs, and which exit status it ends with."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from pipeline import __version__
from pipeline.interrupt import interrupts_remembered, was_interrupted
from transforms.model.errors import GuaranteeError, UsageError

DONE: Final = 0
CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
GUARANTEE_REFUSED: Final = 3
UNEXPECTED: Final = 4
INTERRUPTED: Final = 128 + signal.SIGINT

_HELP: Final = """usage: payment-pipeline COMMAND [options]

Payments from Kafka, each exactly once, to a table.

commands:
  run       read to the end of the topics and write every payment once
  check     find out whether a row was lost, doubled or altered
  produce   send generated payments to a topic
  preflight find out whether run could start, without writing a payment
  demo      all of it on this machine, with kills on the way

`payment-pipeline COMMAND --help` shows the options of a command; --version the version.
exit status: 0 done, 1 a check failed, 2 wrong usage, 3 refused or stopped because the guarantee
could not be kept, 4 unexpected error, 130 interrupted by Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Raises nothing but SystemExit, after --help."""
    with interrupts_remembered():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except UsageError as error:
        print(f"wrong usage: {error}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        return _interrupted(arguments)
    except Exception as error:
        if was_interrupted():
            return _interrupted(arguments)
        message = GuaranteeError.find_in(error)
        if message is None:
            traceback.print_exc()
            print(
                "unexpected error: what is committed is correct, and the next run goes on from"
                " there",
                file=sys.stderr,
            )
            return UNEXPECTED
        print(f"stopped: {message}", file=sys.stderr)
        return GUARANTEE_REFUSED


def _interrupted(arguments: Sequence[str]) -> int:
    state = _INTERRUPTED_IN.get(arguments[0], "nothing was changed")
    print(f"interrupted: {state}", file=sys.stderr)
    return INTERRUPTED


_INTERRUPTED_IN: Final = {
    "run": "nothing is half done; the next run goes on from the last committed position",
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


# Each command imports what it needs when it is called: Beam alone takes more than a second.


def _run(arguments: list[str]) -> int:
    from pipeline.options.run_config import run_config
    from pipeline.run.command import run_command

    return run_command(run_config(arguments))


def _check(arguments: list[str]) -> int:
    from pipeline.check.command import check_command

    return check_command(arguments)


def _produce(arguments: list[str]) -> int:
    from pipeline.produce.command import produce_command

    return produce_command(arguments)


def _preflight(arguments: list[str]) -> int:
    from pipeline.options.run_config import run_config
    from pipeline.preflight import preflight_command

    return preflight_command(run_config(arguments))


def _demo(arguments: list[str]) -> int:
    from pipeline.demo.command import demo_command

    return demo_command(arguments)


_COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "run": _run,
    "check": _check,
    "produce": _produce,
    "preflight": _preflight,
    "demo": _demo,
}
