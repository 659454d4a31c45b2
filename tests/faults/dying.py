"""A process that dies in the middle of a run, as an exception that no step catches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import commit as commit_step
from tests.support.in_memory_kafka import config, run


class ProcessDied(Exception):
    """Stands for kill -9 in this process."""


def die_while_committing(
    commits: int, one_run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run dies when so many tables are committed, before the next one or before it is
    marked committed.
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
        one_run()


def die_after(commits: int, path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """The same for a run into a DuckDB file; options as in RunConfig."""
    die_while_committing(commits, lambda: run(config(path, **options)), monkeypatch)
