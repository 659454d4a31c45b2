"""A number with its noun."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """Such as `1 window` and `1,200 windows`. more: the plural, where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
