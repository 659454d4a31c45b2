"""On a terminal: a bar while a transaction is read, messages on lines of their own, no remains."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from pipeline.run.progress_bar import WIDTH, _frame
from tests.support.run_on_terminal import LONG
from tests.support.terminal import OnTerminal, on_terminal, shown

FIGURES = "transaction 2 of 4: 25% of 1,000,000 records, 50,000/s, 15 s left"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
BAR = "━"


def ran(end: str, tmp_path: Path, columns: int = 100, **environment: str) -> OnTerminal:
    command = [sys.executable, "-m", "tests.support.run_on_terminal", end, str(tmp_path / "a.db")]
    return on_terminal(command, columns, environment)


def warnings_of(transactions: int) -> list[str]:
    """What each transaction of run_on_terminal says while its bar is shown."""
    of_one = [
        rf"{TIME} WARNING \S+: {re.escape(LONG)}",
        "a line of another library",
        rf"{TIME} WARNING \S+: two",
        r"lines \[bold\]as they are\[/bold\]",
    ]
    return of_one * transactions


def assert_lines(found: list[str], expected: list[str]) -> None:
    assert len(found) >= len(expected), found
    for line, pattern in zip(found, expected, strict=False):
        assert re.fullmatch(pattern, line), (line, pattern)


@pytest.mark.parametrize("columns", [100, 40])
def test_warnings_and_the_summary_stand_on_lines_of_their_own(tmp_path: Path, columns: int) -> None:
    screen = ran("well", tmp_path, columns)
    assert screen.status == 0
    found = screen.lines
    assert_lines(found, warnings_of(2))
    summary = found[8:]
    assert_lines(
        summary,
        [
            r"topic +partition +from +to",
            r"payments +0 +0 +3",
            "accepted 3   duplicates 0   rejected 0",
        ],
    )
    assert "transaction 1 of 2: 0% of 2 records" in screen.written.replace("\r\n", " ")
    assert (BAR in screen.written) == (columns == 100)
    assert not [line for line in found if BAR in line or "transaction" in line[:11]]


@pytest.mark.parametrize(
    "end,status,said",
    [
        ("refused", 3, "stopped: offset 7 is gone"),
        ("interrupted", 130, "interrupted: nothing is half done; .*"),
        ("terminated", 143, "terminated: nothing is half done; .*"),
    ],
)
def test_what_ends_a_run_stands_on_a_line_of_its_own(
    tmp_path: Path, end: str, status: int, said: str
) -> None:
    screen = ran(end, tmp_path)
    assert screen.status == status
    found = screen.lines
    assert_lines(found, [*warnings_of(1), said])
    assert not any(found[5:])
    assert BAR in screen.written


def test_an_error_that_was_not_foreseen_is_shown_as_a_whole(tmp_path: Path) -> None:
    screen = ran("failed", tmp_path)
    assert screen.status == 4
    found = screen.lines
    assert_lines(found, [*warnings_of(1), r"Traceback \(most recent call last\):"])
    assert "ZeroDivisionError: surprise" in found
    last = [line for line in found if line][-1]
    assert last.startswith("unexpected error: ")


def test_a_dumb_terminal_gets_lines_and_no_bar(tmp_path: Path) -> None:
    screen = ran("well", tmp_path, TERM="dumb")
    assert screen.status == 0
    assert "\x1b" not in screen.written and BAR not in screen.written
    assert re.match(rf"{TIME} INFO \S+: transaction 1 of 2 begins: at most 2", screen.written)


def test_without_colours_the_bar_has_none(tmp_path: Path) -> None:
    screen = ran("well", tmp_path, NO_COLOR="1")
    assert "transaction 1 of 2: 0% of 2 records" in screen.written
    assert not re.search(r"\x1b\[[\d;]*3\dm|\x1b\[[\d;]*38;", screen.written)
    assert_lines(screen.lines, warnings_of(2))


@pytest.mark.parametrize("columns", [40, 70, 71, 80, 200])
def test_the_figures_are_complete_and_the_bar_takes_what_is_left(columns: int) -> None:
    from rich.console import Console

    written = io.StringIO()
    Console(file=written, width=columns, force_terminal=True).print(_frame(FIGURES, 0.5, columns))
    lines = shown(written.getvalue().replace("\n", "\r\n"), columns)
    text = " ".join("\n".join(lines).split())
    assert FIGURES in text
    assert sum(map(text.count, "━╸╺")) == {40: 0, 70: 0, 71: 5, 80: 14, 200: WIDTH}[columns]
    assert all(len(line) <= columns for line in lines)
