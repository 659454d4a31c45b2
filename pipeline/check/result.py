"""The result of a check: passed or failed, the figures, and rows that prove a failure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

PASSED: Final = "passed"
FAILED: Final = "FAILED"
NOTED: Final = "noted"
"""Worth reporting, but no failure."""

LATER: Final = "later"
"""Not known now: a file in use, or a broker or service that does not answer."""

PROOF_ROWS: Final = 5


@dataclass(frozen=True)
class CheckResult:
    """figure: what was found, for a person; proof: up to five rows that show a failure."""

    name: str
    status: str
    figure: str
    proof: Sequence[dict[str, Any]] = ()


def expect_no_rows(name: str, found: pa.Table, what: str) -> CheckResult:
    """Fails if there is a row in `found`. what: what these rows are, such as "differences"."""
    if not found.num_rows:
        return CheckResult(name, PASSED, f"no {what}")
    return CheckResult(
        name, FAILED, f"{found.num_rows:,} {what}", found.slice(0, PROOF_ROWS).to_pylist()
    )


def print_results(results: Sequence[CheckResult], as_json: bool) -> None:
    """To standard output: one line a result, with the rows of its proof, or one JSON array."""
    if as_json:
        print(json.dumps([asdict(result) for result in results], default=str))
        return
    width = max(len(result.name) for result in results)
    for result in results:
        print(f"{result.status:<7} {result.name:<{width}}  {result.figure}")
        for row in result.proof:
            print(" " * 8 + ", ".join(f"{name}={value}" for name, value in row.items()))
