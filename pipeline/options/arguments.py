"""Strict argument parsing: an unknown or malformed flag raises UsageError."""

from __future__ import annotations

import argparse
import difflib
import itertools
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.logs import TEXT
from transforms.model.errors import UsageError


class Arguments(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raises UsageError with argparse's message.

        One phrase is replaced: a flag that takes no value does not "ignore" one, it is refused.
        """
        message = message.replace("ignored explicit argument", "takes no value, but got")
        raise UsageError(f"{message}. See `{self.prog} --help`.")

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """Raises UsageError for any argument that is not known, with the nearest known flag."""
        namespace, unknown = self.parse_known_args(argv)
        if unknown:
            flag = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(
                flag, [text for action in self._actions for text in action.option_strings], n=1
            )
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"{unknown[0]}: there is no such option.{hint} See `{self.prog} --help`."
            )
        return namespace


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "[auto]" is what Beam calls an address that is not given, which no user can have.
        none = (None, False, "", "[auto]")
        return action.help if action.default in none else super()._get_help_string(action)


def plain_parser(prog: str, description: str) -> Arguments:
    """The parser of a command that needs no Beam. Flags may not be abbreviated."""
    return Arguments(
        prog=prog, description=description, allow_abbrev=False, formatter_class=HelpFormatter
    )


def add_output_arguments(parser: Any, json_help: str) -> None:
    """--json and --log_format, which the command line itself looks at too (pipeline/cli.py)."""
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_argument(
        "--log_format",
        default=TEXT,
        metavar="text|json",
        help="lines on standard error: text, or json, one object each",
    )


def value_of(argv: Sequence[str], flag: str) -> str | None:
    """The last value of --flag in arguments that nothing has parsed yet; None without it."""
    found = None
    for argument, following in itertools.zip_longest(argv, argv[1:]):
        if argument.startswith(f"--{flag}="):
            found = argument.partition("=")[2]
        elif argument == f"--{flag}":
            found = following
    return found


def required(namespace: argparse.Namespace, name: str, example: str) -> str:
    """The value of a flag that must be given. Raises UsageError without it."""
    value = getattr(namespace, name)
    if not value:
        raise UsageError(f"--{name} is missing. Give it, such as --{name}={example}.")
    return str(value)


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """The value, if it is allowed. Raises UsageError naming the flag and what is allowed."""
    if value not in allowed:
        names = f"{', '.join(allowed[:-1])} and {allowed[-1]}"
        raise UsageError(f"--{flag}={value}: allowed are {names}.")
    return value
