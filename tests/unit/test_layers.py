"""Every import runs down: tests -> pipeline -> {transforms, runners}, and between the rooms of
transforms.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN = {
    "transforms": {"pipeline", "runners", "tests", "benchmarks"},
    "runners": {"pipeline", "transforms", "tests", "benchmarks"},
    "pipeline": {"tests", "benchmarks"},
}

CONTRACT, APPENDS, SQL = "destinations.contract", "destinations.appends", "destinations.sql"
MAY_IMPORT = {
    "model": set(),
    CONTRACT: {"model"},
    APPENDS: {"model", "metrics", CONTRACT},
    SQL: {"model", CONTRACT},
    "destinations.bigquery": {"model", "metrics", CONTRACT, APPENDS, SQL},
    "destinations.duckdb": {"model", CONTRACT, APPENDS, SQL},
    "destinations.open": {
        "model",
        CONTRACT,
        "destinations.bigquery",
        "destinations.duckdb",
    },
    "metrics": set(),
    "read": {"model", "metrics"},
    "decode": {"model"},
    "deduplicate": {"model", "metrics", CONTRACT},
    "write": {"model", "metrics", CONTRACT, APPENDS},
    "stream": {"model", "metrics", CONTRACT, APPENDS, "deduplicate"},
}
"""Room of transforms -> the rooms that it may import, apart from itself."""


def imported_modules(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from transforms.read import read_records` imports a module as well as a package.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(file: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported_modules(file)}


def room_of(module: str) -> str | None:
    """The room of a module of transforms; None for transforms and destinations themselves."""
    rooms = module.split(".")[1:]
    if rooms[:1] == ["destinations"]:
        return ".".join(rooms[:2]) if len(rooms) > 1 else None
    return rooms[0] if rooms else None


@pytest.mark.parametrize("package", ["pipeline", "runners", "transforms"])
def test_a_layer_imports_nothing_above_or_beside_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        assert not imported_packages(file) & FORBIDDEN[package], file


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    place = ROOT / "transforms" / room.replace(".", "/")
    files = sorted(place.rglob("*.py")) or [place.with_suffix(".py")]
    for file in files:
        modules = [module for module in imported_modules(file) if module.startswith("transforms.")]
        rooms = {room_of(module) for module in modules} - {room, None}
        assert rooms <= MAY_IMPORT[room], file


def test_every_file_of_transforms_lies_in_a_room_with_a_rule() -> None:
    for file in (ROOT / "transforms").rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert room_of(module) in {*MAY_IMPORT, None}, file


STEPS_OF_STREAMING = {"deduplicate_and_write.py", "write_totals.py", "write_gaps.py"}
"""The DoFns over the protocol of streaming."""


def test_the_streaming_protocol_knows_no_runner() -> None:
    stream = ROOT / "transforms" / "stream"
    files = [
        *(file for file in stream.glob("*.py") if file.name not in STEPS_OF_STREAMING),
        *(ROOT / "transforms" / "destinations" / "contract").glob("*.py"),
    ]
    assert all((stream / name).is_file() for name in STEPS_OF_STREAMING)
    assert len(files) > 8
    for file in files:
        assert "apache_beam" not in imported_packages(file), file


DOORS = {
    "destination": "Destination",
    "tables": "Tables",
    "streams": "Streams",
    "run_ledger": "RunLedger",
    "reports": "Reports",
    "shard_ledger": "ShardLedger",
    "stored_rows": "StoredRows",
}
"""File of a part -> how its class's name ends; docs/destinations.md says what a third one needs."""


def test_every_destination_has_the_same_doors() -> None:
    destinations = ROOT / "transforms" / "destinations"
    folders = [
        file.parent
        for file in destinations.glob("*/__init__.py")
        if file.parent.name not in ("contract", "sql")
    ]
    assert len(folders) > 1
    kinds = {folder: public_classes(folder / "destination.py") for folder in folders}
    for folder, (destination,) in kinds.items():
        kind = destination.removesuffix("Destination")
        for door, part in DOORS.items():
            assert kind + part in public_classes(folder / f"{door}.py"), folder / f"{door}.py"


def public_classes(file: Path) -> list[str]:
    return [
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def test_no_folder_of_tests_is_named_like_a_package() -> None:
    """pytest puts tests/ on the path of some modules: a folder `pipeline` there would hide the
    package.
    """
    folders = {folder.name for folder in (ROOT / "tests").iterdir() if folder.is_dir()}
    assert not folders & set(FORBIDDEN)


def test_money_is_never_a_float() -> None:
    """The name `float` appears in none of the files that touch amounts, apart from the decoder's
    FLOAT64 columns.
    """
    for name in ("model/totals", "deduplicate/outcome", "model/tables"):
        tree = ast.parse((ROOT / "transforms" / f"{name}.py").read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        }
        assert not names & {"float", "float64", "float32"}
