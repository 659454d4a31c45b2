"""How the process of a command ends: all that an interpreter does for others, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def ending(code: str) -> subprocess.CompletedProcess[str]:
    return python("-c", f"{code}\nfrom pipeline.process_end import end_process\nend_process(3)")


def test_its_exit_status_is_that_of_the_command() -> None:
    ended = python("-m", "pipeline", "no-such-command")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no such command" in ended.stderr


def test_what_was_printed_arrives_in_a_pipe() -> None:
    ended = python("-m", "pipeline", "--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("payment-pipeline ")
    assert ending("print('some', end='')").stdout == "some"


def test_a_reader_that_has_gone_away_does_not_change_the_status() -> None:
    code = (
        "import os, sys\nread, write = os.pipe()\nos.dup2(write, 1)\nos.close(read)\n"
        "os.close(write)\nsys.stdout = open(1, 'w', closefd=False)\nprint('nobody reads it')"
    )
    ended = ending(code)
    assert (ended.returncode, ended.stderr) == (3, "")


@pytest.mark.parametrize("output", ["stdout", "stderr"])
@pytest.mark.parametrize("gone", ["sys.{0} = None", "sys.{0}.close()"])
def test_an_output_that_is_not_there_does_not_change_the_status(output: str, gone: str) -> None:
    assert ending(f"import sys\n{gone.format(output)}").returncode == 3


def test_ctrl_c_while_a_thread_is_waited_for_ends_the_waiting() -> None:
    code = (
        "import os, signal, threading\n"
        "def wait():\n    os.kill(os.getpid(), signal.SIGINT)\n    threading.Event().wait()\n"
        "shutdown = threading._shutdown\n"
        "threading._shutdown = lambda: (threading.Thread(target=wait).start(), shutdown())\n"
        "import atexit; atexit.register(print, 'last words')"
    )
    ended = ending(code)
    assert (ended.returncode, ended.stdout) == (3, "last words\n")


def test_functions_of_atexit_are_called_the_last_one_first() -> None:
    ended = ending("import atexit\nfor n in 'ab': atexit.register(print, n, end='')")
    assert (ended.returncode, ended.stdout) == (3, "ba")


def test_a_thread_that_is_no_daemon_is_waited_for() -> None:
    code = (
        "import threading\ngo = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(60), print('done', end=''))).start()\n"
        "threading.Timer(0.05, go.set).start()"
    )
    assert ending(code).stdout == "done"


@pytest.mark.parametrize("command", [["check"], ["prune", "--before=2026-01-01"]])
def test_a_command_that_has_opened_a_file_leaves_nothing_but_its_own_words(
    command: list[str], tmp_path: Path
) -> None:
    ended = python("-m", "pipeline", *command, f"--destination=duckdb:{tmp_path / 'p.duckdb'}")
    assert "leaked" not in ended.stderr


def test_a_program_that_calls_the_command_ends_without_a_word_too(tmp_path: Path) -> None:
    """It destroys what was loaded, as interpreters do; DuckDB looks whether that is all."""
    code = (
        "import sys\nfrom pipeline import cli\n"
        f"sys.exit(cli.main(['check', '--destination=duckdb:{tmp_path / 'p.duckdb'}']))"
    )
    assert "leaked" not in python("-c", code).stderr
