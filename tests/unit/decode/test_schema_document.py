"""docs/schema.md says of each type which values are taken, and why others are rejected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.schema_file import _OUR_COLUMNS, _SYNONYMS, load_schema
from tests.unit.decode.test_values import KEY, TIME, decode, schema_of
from transforms.model.rejected import REASONS
from transforms.model.schema import ARROW_TYPES

DOCUMENT = (Path(__file__).parents[3] / "docs" / "schema.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.splitlines()
    if line.startswith("| `")
]
CELLS = {row[0].strip("`"): row[1:] for row in ROWS}
TAKEN = [(kind, value) for kind in CELLS for value in re.findall("`([^`]+)`", CELLS[kind][1])]
REJECTED = [
    (kind, value, reason)
    for kind in CELLS
    for value, reason in re.findall(r"`([^`]+)`: (\w+)", CELLS[kind][2])
]


def decoded(folder: Path, kind: str, value: str) -> tuple[list[Any], list[Any]]:
    field: dict[str, Any] = {"name": "v", "type": kind}
    if kind == "RECORD":
        field["fields"] = [{"name": "a", "type": "STRING"}]
    message = f'{{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","v":{value}}}'
    return decode(schema_of(folder, [KEY, TIME, field]), message.encode())


@pytest.mark.parametrize(("kind", "value"), TAKEN)
def test_what_is_taken(kind: str, value: str, tmp_path: Path) -> None:
    (row,), rejected = decoded(tmp_path, kind, value)
    assert row["v"] is not None and not rejected


@pytest.mark.parametrize(("kind", "value", "reason"), REJECTED)
def test_what_is_rejected(kind: str, value: str, reason: str, tmp_path: Path) -> None:
    payments, ((found, detail),) = decoded(tmp_path, kind, value)
    assert found == reason and not payments
    assert reason == "invalid_json" or detail.startswith("v: ")


def test_every_type_and_other_name_is_there() -> None:
    assert set(CELLS) == {*ARROW_TYPES, "RECORD"}
    others = {name: kind for kind, row in CELLS.items() for name in re.findall(r"`(\w+)`", row[0])}
    assert others == _SYNONYMS
    assert {reason for _, _, reason in REJECTED} < set(REASONS)
    assert len(TAKEN) > 20 and len(REJECTED) > 15


def test_the_example_is_a_schema(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    file = tmp_path / "schema.json"
    file.write_text(text)
    assert [field.name for field in load_schema(str(file)).fields] == [
        entry["name"] for entry in json.loads(text)
    ]


def test_every_reserved_name_is_there() -> None:
    assert all(f"`{name}`" in DOCUMENT for name in _OUR_COLUMNS)
