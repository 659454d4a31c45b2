"""Servers that live for some tests only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.child_process import ending_with_this_process

_FLAGS: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""A simple collector, and only the quick one of the two compilers: what the other one gains comes
after minutes, and until then it takes most of a core.
"""


def ending_soon(command: Sequence[str]) -> list[str]:
    """A server's command as tests launch it; of Java with the flags above."""
    program, *arguments = command
    flags = _FLAGS if Path(program).name == "java" else ()
    more = [flag for flag in flags if flag not in arguments]
    return ending_with_this_process([program, *more, *arguments])
