"""What the documents say of the code is true."""

import argparse
import re
from pathlib import Path

import pytest

from pipeline import cli, failures
from pipeline.check import result as check_result
from pipeline.check.command import UNPROTECTED_COLUMNS
from pipeline.options.flags import OURS
from tests.support.in_memory_kafka import InMemoryKafka, table
from transforms.model.rejected import REASONS
from transforms.model.tables import GAPS, PAYMENTS, REJECTED, RUNS

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    file
    for folder in ("", "docs/", "benchmarks/", "deploy/")
    for file in ROOT.glob(f"{folder}*.md")
)


@pytest.mark.parametrize(
    ("document", "at_least"), [("guarantees.md", 20), ("streaming.md", 20), ("destinations.md", 8)]
)
def test_every_test_that_the_guarantees_name_is_there(document: str, at_least: int) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", (ROOT / "docs" / document).read_text())
    assert len(named) > at_least
    for path, test in named:
        text = (ROOT / path).read_text()
        assert not test or re.search(rf"(def|class) {test}\b", text), f"{path}::{test}"


@pytest.mark.parametrize("table", [PAYMENTS, REJECTED, GAPS, RUNS])
def test_the_unprotected_columns_are_listed(table: str) -> None:
    (row,) = [
        line for line in GUARANTEES.splitlines() if line.startswith("| `") and f"`{table}`" in line
    ]
    assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(UNPROTECTED_COLUMNS[table])


def test_the_readme_has_every_option_of_run_with_its_default() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    for options in OURS:
        options._add_argparse_args(parser)
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `--"))
    for action in parser._actions:
        assert f"`--{action.dest}`" in rows
        assert not action.default or f"`{action.default}`" in rows, action.dest


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md"])
def test_every_exit_status_is_documented(document: str) -> None:
    text = (ROOT / document).read_text()
    statuses = [
        value
        for module in (cli, failures, check_result)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int) and name != "PROOF_ROWS"
    ]
    assert sorted(set(statuses)) == [0, 1, 2, 3, 4, 5, 6, 130, 141, 143]
    pattern = r"^\| {} \|" if document.startswith("docs") else r"\b{} [a-z]"
    for status in statuses:
        assert re.search(pattern.format(int(status)), text, re.MULTILINE), status


def test_the_readme_lists_every_reason_of_a_rejection_in_order() -> None:
    (listed,) = re.findall(r"one of these reasons, the first that applies:([^.]*)\.", README)
    assert re.findall(r"`(\w+)`", listed) == list(REASONS)


def test_the_readmes_own_topic_is_read_as_it_says(
    kafka: InMemoryKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message, with its schema file and its options: a payment, and no field left over."""
    message, schema = re.findall(r"```json\n(.*?)\n```", README, re.DOTALL)
    (function,) = re.findall(r"payment-pipeline \"\$@\" (.*?)\n}", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.json").write_text(schema)
    kafka.create("orders", 1)
    kafka.send("orders", 0, message.encode())
    assert cli.main(["run", *function.replace("\\\n", " ").split()]) == 0
    assert table(
        "orders.duckdb",
        "SELECT transaction_id, epoch_ms(event_time), cents, shop.city, unknown_fields"
        " FROM payment_transactions",
    ) == [("o-1", 1790000000123, 1299, "Bonn", None)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target
