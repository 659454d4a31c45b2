"""What the system says of a process."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; 0 once it has ended."""
    return _status(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had in RAM so far; 0 once it has ended."""
    return _status(pid, "VmHWM") * 1024


def threads(pid: int) -> int:
    """Of a process; 0 once it has ended."""
    return _status(pid, "Threads")


def _status(pid: int, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # A process that has ended, and nobody has waited for, has no memory.
    rows = (row for row in text.splitlines() if row.startswith(f"{name}:"))
    return next((int(row.split()[1]) for row in rows), 0)
