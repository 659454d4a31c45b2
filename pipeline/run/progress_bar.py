"""The progress bar on a terminal, drawn by rich. Import it only where there is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.interrupt import finish_before_interrupt
from pipeline.logs import lines_written_by

WIDTH: Final = 30
LEAST_WIDTH: Final = 5
FRAMES_PER_SECOND: Final = 10


class _Terminal(Console):
    """Standard error, whose cursor stays visible: a killed process could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Changes nothing, and says so."""
        return False


@contextmanager
def bar_shown(
    figures: Callable[[], str], share: Callable[[], float] | None = None
) -> Iterator[None]:
    """Shows the figures and a bar as the last line while the block runs, then removes them.

    Log lines are written above. share: how much of the bar is filled, from 0 to 1; None: there is
    no bar. Raises KeyboardInterrupt for a signal that comes meanwhile, with the bar removed.
    """
    # Whether it is a terminal has been found out (shows_bar); no variable may say otherwise here.
    terminal = _Terminal(stderr=True, force_terminal=True, force_interactive=True)
    live = Live(
        get_renderable=lambda: (
            Text(figures()) if share is None else _frame(figures(), share(), terminal.width)
        ),
        console=terminal,
        refresh_per_second=FRAMES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
    )

    def write_above(line: str) -> None:
        terminal.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    try:
        with finish_before_interrupt():
            live.start(refresh=True)
        with lines_written_by(write_above):
            yield
    finally:
        live.stop()


def _frame(figures: str, share: float, columns: int) -> RenderableType:
    """The bar where there is room for one; on a narrow terminal the figures in several lines."""
    room = min(WIDTH, columns - len(figures) - 1)
    if room < LEAST_WIDTH:
        return Text(figures)
    line = Table.grid(padding=(0, 1))
    line.add_row(Text(figures), ProgressBar(total=1.0, completed=share, width=room))
    return line
