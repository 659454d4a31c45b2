"""`demo` as a user starts it: kills on the way, and each figure of its closing table is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import ROOT


def test_every_figure_of_the_demo_is_right(tmp_path: Path) -> None:
    done = subprocess.run(
        ending_with_this_process([sys.executable, "-m", "pipeline", "demo"]),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "nothing is visible of the killed run: payment_transactions 0," in done.stdout
    assert "Every message has exactly one row." in done.stdout
