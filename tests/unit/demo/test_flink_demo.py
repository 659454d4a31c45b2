"""What `demo` on Flink and on Spark refuses, and that a refused one changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("runner", ["flink", "spark"])
def test_without_java_one_line_says_so(
    runner: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/no/java/here")
    assert main(["demo", f"--runner={runner}"]) == 3
    shown, said = capsys.readouterr()
    assert shown == "" and len(said.splitlines()) == 1
    assert "Java 17 is missing (below JAVA_HOME=/no/java/here)" in said
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--runner=storm"], "--runner=storm"),
        (["--runner=flink", "--destination=bigquery"], "--destination=bigquery with"),
        (["--runner=spark", "--destination=duckdb"], "--destination=duckdb with"),
    ],
)
def test_what_it_cannot_play_is_refused(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *arguments]) == 2
    assert why in capsys.readouterr().err
    assert os.listdir() == []
