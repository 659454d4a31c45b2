"""The two errors that end a bundle of streaming, but not the job: the runner tries it again."""

from __future__ import annotations


class Superseded(RuntimeError):
    """Another process has taken the shard over, so this process is a zombie.

    The bundle fails; the runner decides which process goes on.
    """


class StreamGone(RuntimeError):
    """A stream of this epoch has expired: the next attempt of the bundle must recover the shard."""
