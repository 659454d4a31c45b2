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

PROOF: Final = "proof"
LIMIT: Final = "limit"
"""Kinds of checks: a part of the proof, or a limit that was set for a figure."""

PROOF_BROKEN: Final = 1
LIMIT_EXCEEDED: Final = 6
"""Exit statuses of `check` where a check failed, by its kind; where both kinds failed: 1."""

LATER: Final = "later"
"""Not known now: a file in use, or a broker or service that does not answer."""

PROOF_ROWS: Final = 5


@dataclass(frozen=True)
class CheckResult:
    """figure: what was found, for a person; proof: up to five rows that show a failure; kind: PROOF
    or LIMIT.
    """

    name: str
    status: str
    figure: str
    proof: Sequence[dict[str, Any]] = ()
    kind: str = PROOF


def limit_result(
    name: str, keeps: bool, figure: str, proof: Sequence[dict[str, Any]] = ()
) -> CheckResult:
    """Of a figure with a limit. keeps: whether it is within the limit."""
    return CheckResult(name, PASSED if keeps else FAILED, figure, proof, LIMIT)


def exit_status(results: Sequence[CheckResult]) -> int:
    """0: nothing failed, else PROOF_BROKEN or LIMIT_EXCEEDED."""
    kinds = {result.kind for result in results if result.status == FAILED}
    if PROOF in kinds:
        return PROOF_BROKEN
    return LIMIT_EXCEEDED if kinds else 0


def expect_no_rows(name: str, found: pa.Table, what: str) -> CheckResult:
    """Fails if there is a row in `found`. what: what these rows are, such as "differences"."""
    if not found.num_rows:
        return CheckResult(name, PASSED, f"no {what}")
    return CheckResult(
        name, FAILED, f"{what}: {found.num_rows:,}", found.slice(0, PROOF_ROWS).to_pylist()
    )


def print_results(results: Sequence[CheckResult], as_json: bool) -> None:
    """To standard output: one line a result, with the rows of its proof, or one JSON array."""
    if as_json:
        print(json.dumps([asdict(result) for result in results], default=str))
        return
    width = max(len(result.name) for result in results)
    for result in results:
        limit = (
            " [a limit, not the proof]" if (result.status, result.kind) == (FAILED, LIMIT) else ""
        )
        print(f"{result.status:<7} {result.name:<{width}}  {result.figure}{limit}")
        for row in result.proof:
            print(" " * 8 + ", ".join(f"{name}={value}" for name, value in row.items()))
