"""A command on a pseudo terminal, and what the terminal shows of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.child_process import ending_with_this_process

_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(.)", re.DOTALL)
_MOST_SECONDS = 120


@dataclass(frozen=True)
class OnTerminal:
    """status: of the process. written: all that it wrote. lines: what is on the screen at last."""

    status: int
    written: str
    lines: list[str]


def on_terminal(
    command: Sequence[str], columns: int = 100, environment: Mapping[str, str] | None = None
) -> OnTerminal:
    """Runs the command with a pseudo terminal as its standard input, output and error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    }
    process = subprocess.Popen(
        ending_with_this_process(command),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm-256color", **(environment or {})},
    )
    os.close(theirs)
    written = bytearray()
    try:
        while part := _read(ours):
            written += part
        status = process.wait(_MOST_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = written.decode()
    return OnTerminal(status, text, shown(text, columns))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux's end of file of a pseudo terminal whose other side is closed
        return b""


def shown(written: str, columns: int) -> list[str]:
    """What stands on a terminal of that width after the text was written.

    Line by line, without trailing blanks; a line that only the terminal has broken is whole.
    Of the control sequences it knows what is written here: cursor up, erase, and colours.
    https://www.xfree86.org/current/ctlseqs.html
    """
    lines: list[list[str]] = [[]]
    broken: set[int] = set()
    row = column = 0
    for parameters, command, character in _CONTROL.findall(written):
        if character == "\r":
            column = 0
        elif character == "\n":
            row += 1
        elif character:
            if column == columns:
                broken.add(row)
                row, column = row + 1, 0
            while len(lines) <= row:
                lines.append([])
            lines[row] += [" "] * (column + 1 - len(lines[row]))
            lines[row][column] = character
            column += 1
        elif command == "A":
            row -= int(parameters or 1)
        elif (parameters, command) == ("2", "K"):
            lines[row] = []
            broken.discard(row)
        elif command != "m":
            raise ValueError(f"an unknown control sequence: {parameters}{command}")
        while len(lines) <= row:
            lines.append([])
    text = "".join(
        "".join(line) + ("" if row in broken else "\n") for row, line in enumerate(lines)
    )
    return [line.rstrip() for line in text.splitlines()]
