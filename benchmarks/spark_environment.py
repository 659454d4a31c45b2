"""Spark for the benchmark: a virtual environment of its own, and the jars that read from Kafka.

Both lie in the cache folder and are made once. The project does not depend on pyspark.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runners.java import Unavailable, java_command
from runners.maven import cache_folder, jars_of
from tests.support.child_process import ending_with_this_process

_REQUIREMENTS = Path(__file__).with_name("spark-requirements.txt")
_JARS = Path(__file__).with_name("spark-kafka.pom.xml")
_MAKE_SECONDS = 1_800


@dataclass(frozen=True)
class SparkEnvironment:
    """python: of the virtual environment. jars: what Spark needs to read from Kafka."""

    python: Path
    jars: tuple[Path, ...]


def spark_environment() -> SparkEnvironment:
    """Fetches Spark from PyPI and Maven Central the first time: some 320 MB.

    Raises Unavailable, with the reason, where Java, Maven or a registry is missing.
    """
    java_command()
    jars = jars_of(_JARS, ending_with_this_process)
    return SparkEnvironment(_virtual_environment(), tuple(sorted(jars.glob("*.jar"))))


def _virtual_environment() -> Path:
    """Its Python. It is made in a folder that is renamed once it is complete."""
    cache = cache_folder()
    wanted = f"{sys.version_info[:2]} {_REQUIREMENTS.read_text()}"
    folder = cache / f"spark-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, also when the process dies
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                made = Path(scratch, "environment")
                _done([sys.executable, "-m", "venv", str(made)])
                install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                # Scripts of a virtual environment name the folder that it was made in; `python -m`
                # works wherever it lies.
                _done([str(made / "bin/python"), *install, "-r", str(_REQUIREMENTS)])
                made.rename(folder)
    return folder / "bin/python"


def _done(command: list[str]) -> None:
    try:
        subprocess.run(
            ending_with_this_process(command),
            capture_output=True,
            text=True,
            timeout=_MAKE_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no output"]
        raise Unavailable(f"Spark cannot be installed from PyPI: {lines[-1]}") from error
    except subprocess.TimeoutExpired as late:
        raise Unavailable(
            f"Spark was not installed from PyPI within {_MAKE_SECONDS} s. Is PyPI reached?"
        ) from late
