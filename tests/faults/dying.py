"""A process that dies in the middle of a run, in this process: an exception that nobody catches."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.run import commit as commit_step


class ProcessDied(Exception):
    """Stands for kill -9 in this process."""


def die_while_committing(
    commits: int, run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies when so many tables are committed, before the next one or before it is
    marked.
    """
    original, calls = commit_step.commit_table, 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        if calls == commits:
            raise ProcessDied
        calls += 1
        original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(commit_step, "commit_table", dying)
        patch.setattr(commit_step, "mark", lambda *_: dying())
        run()
