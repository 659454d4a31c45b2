"""What docs/runners.md shows of the runners, asked of the code that a run asks.

`python -m tests.support.runners_document` writes the tables into the document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.options.run_config import run_config
from runners.profile import RunnerProfile
from runners.registry import PROFILES
from transforms.model.errors import GuaranteeError, UsageError

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "runners.md"
BEGIN: Final = "<!-- made by python -m tests.support.runners_document -->\n"
END: Final = "<!-- end -->\n"

_NEEDED: Final = {
    "FlinkRunner": ("--flink_master=localhost:8081", "--job_endpoint=localhost:8099"),
    "SparkRunner": ("--job_endpoint=localhost:8099",),
}
_WORKERS: Final = {
    "LOOPBACK": (),
    "EXTERNAL": ("--environment_config=localhost:50000",),
    "PROCESS": ('--environment_config={"command": "/worker"}',),
    "DOCKER": ("--environment_config=image",),
}
_DUCKDB: Final = "--destination=duckdb:payments.duckdb"
_BIGQUERY: Final = "--destination=bigquery:project.payments"


def tables() -> str:
    """All tables of the document, in its order."""
    return "\n".join([_abilities(), "## Options that a runner brings\n", _flags(), _refusals()])


def _abilities() -> str:
    rows = [
        ("a bounded `run`", ["yes" if _allowed(each) else "no" for each in PROFILES]),
        ("`run --every`", ["yes" if _allowed(each, "--every=10s") else "no" for each in PROFILES]),
        (
            "`run --streaming`",
            ["yes" if _allowed(each, "--streaming") else "no" for each in PROFILES],
        ),
        ("`--dedup_layout=per_key`", [_yes(each, "--dedup_layout=per_key") for each in PROFILES]),
        ("workers into DuckDB", [_workers(each, _DUCKDB) for each in PROFILES]),
        ("workers into BigQuery", [_workers(each, _BIGQUERY) for each in PROFILES]),
    ]
    names = " | ".join(f"`--runner={each.name}`" for each in PROFILES)
    lines = [f"| | {names} |", "|---" * (len(PROFILES) + 1) + "|"]
    return "\n".join([*lines, *(f"| {what} | {' | '.join(each)} |" for what, each in rows)]) + "\n"


def _yes(profile: RunnerProfile, *options: str) -> str:
    """In the mode that the runner has."""
    mode = () if _allowed(profile) else ("--streaming",)
    return "yes" if _allowed(profile, *mode, *options) else "no"


def _workers(profile: RunnerProfile, destination: str) -> str:
    if profile.name not in _NEEDED:
        return _yes(profile, destination)
    found = [
        f"`{kind}`"
        for kind, config in _WORKERS.items()
        if _yes(profile, destination, f"--environment_type={kind}", *config) == "yes"
    ]
    return ", ".join(found)


def _allowed(profile: RunnerProfile, *options: str) -> bool:
    source = ("--bootstrap_servers=localhost:9092", "--topic=payments")
    needed = _NEEDED.get(profile.name, ())
    if not any(option.startswith("--destination") for option in options):
        needed = (*needed, _BIGQUERY)
    try:
        run_config([*source, f"--runner={profile.name}", *needed, *options])
    except (GuaranteeError, UsageError):
        return False
    return True


def _flags() -> str:
    lines = ["| option | runner | sent where none is given | |", "|---|---|---|---|"]
    for profile in PROFILES:
        for flag in profile.flags:
            sent = f"`{flag.set_to}`" if flag.set_to is not None else ""
            lines.append(f"| `--{flag.name}` | {profile.name} | {sent} | {flag.help} |")
        for name, value in profile.defaults.items():
            lines.append(f"| `--{name}` | {profile.name} | `{value}` | Beam's own |")
    return "\n".join(lines) + "\n"


def _refusals() -> str:
    lines = ["| refused | runner | why, and what to use |", "|---|---|---|"]
    for profile in PROFILES:
        for refusal in profile.refusals:
            option = f"--{refusal.option}" + (f"={refusal.value}" if refusal.value else "")
            lines.append(f"| `{option}` | {profile.name} | {refusal.reason} |")
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    """The document with the tables as they are now."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
