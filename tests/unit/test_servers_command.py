"""What `flink` and `spark` say alike, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main

pytestmark = pytest.mark.parametrize("name", ["flink", "spark"])


def test_help_names_the_three(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out == (
        f"usage: payment-pipeline {name} up|down|status [options]\n\n"
        f"`payment-pipeline {name} up --help` shows the options.\n"
    )


@pytest.mark.parametrize("given", ["", "off", "Up"])
def test_another_word_is_refused(name: str, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, *given.split()]) == 2
    allowed = f"{name} {given}: allowed are {name} up, {name} down and {name} status."
    assert allowed in capsys.readouterr().err


def test_a_server_that_cannot_start_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/no/java/here")
    assert main([name, "up", f"--dir={tmp_path / 'servers'}"]) == 3
    assert "stopped: Java 17 is missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_cache_is_the_default(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    assert main([name, "status"]) == 0
    assert capsys.readouterr().out == f"nothing runs in {tmp_path / f'{name}-cluster'}\n"
