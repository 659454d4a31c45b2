"""`demo` on Flink and on Spark leaves nothing behind when it is interrupted half way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runners.flink.version import POM as FLINK
from runners.java import Unavailable, java_command
from runners.maven import jars_of
from runners.spark.version import POM as SPARK
from tests.support.child_process import ending_with_this_process

ROOT = Path(__file__).parents[2]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demo's folder and files are. Without Java or Maven its tests are skipped, or fail
    where CI is set.
    """
    try:
        java_command()
        jars_of(FLINK)
        jars_of(SPARK)
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def processes_of(folder: Path) -> list[str]:
    shown = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in shown.splitlines() if str(folder) in line]


@pytest.mark.parametrize(
    ("runner", "step", "number"),
    [
        ("flink", "run --streaming", signal.SIGINT),
        ("flink", "run --streaming", signal.SIGHUP),
        ("spark", "run --runner=SparkRunner", signal.SIGHUP),
    ],
)
def test_an_interrupted_demo_leaves_no_process_and_no_folder(
    runner: str, step: str, number: signal.Signals, temporary: Path, tmp_path: Path
) -> None:
    demo = subprocess.Popen(
        ending_with_this_process([sys.executable, "-m", "pipeline", "demo", f"--runner={runner}"]),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
    )
    assert demo.stdout is not None
    assert any(step in line for line in demo.stdout)
    assert len(processes_of(temporary)) >= 3
    demo.send_signal(number)
    # Whatever still runs has the pipe open.
    assert demo.communicate(timeout=60)[0] == ""
    assert demo.returncode == (130 if number == signal.SIGINT else 143)
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []
