"""Jars from Maven Central, in a cache folder: fetched once, atomically, and checked before use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runners.java import Unavailable

_MANIFEST: Final = "SHA256SUMS"
_FETCH_SECONDS: Final = 900

Launch = Callable[[Sequence[str]], list[str]]
"""From a command to the command that is started in its place."""


def cache_folder() -> Path:
    """Where fetched jars are kept.

    PIPELINE_CACHE, if it is set; .cache of a checkout; else payment-pipeline in the user's cache
    folder (https://specifications.freedesktop.org/basedir-spec/latest/).
    """
    if given := os.environ.get("PIPELINE_CACHE"):
        return Path(given).absolute()
    root = Path(__file__).absolute().parents[1]
    if (root / "Makefile").is_file() and (root / "setup.py").is_file():
        return root / ".cache"
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(users, "payment-pipeline")


def jars_of(pom: Path, launch: Launch = list) -> Path:
    """The folder with what the pom depends on; one process at a time fetches it.

    pom: NAME.pom.xml; a changed one gets a folder of its own. Raises Unavailable when Maven is
    missing or fails, or when a jar is not what was fetched.
    """
    cache = cache_folder()
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:8]
    folder = cache / f"{pom.name.removesuffix('.pom.xml')}-{digest}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with Path(f"{folder}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, also when the process dies
            if not folder.is_dir():
                _fetch(pom, folder, launch)
    _verify(folder)
    return folder


def _fetch(pom: Path, folder: Path, launch: Launch) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable(
            f"Maven is missing, so the jars of {pom.name} cannot be fetched. Install it (Debian,"
            " Ubuntu: maven)."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = Path(scratch, "jars")
        # -C: a file whose checksum is not the repository's fails the build.
        # https://maven.apache.org/ref/3.9.9/maven-embedder/cli.html
        command = ["mvn", "-B", "-C", "-f", str(pom), "dependency:copy-dependencies"]
        place = [f"-DoutputDirectory={target}", f"-Dbasedir={scratch}"]
        try:
            done = subprocess.run(
                launch([*command, *place]),
                capture_output=True,
                text=True,
                timeout=_FETCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise Unavailable(
                f"Maven did not fetch the jars of {pom.name} within {_FETCH_SECONDS} s. Is Maven"
                " Central reached? A mirror or a proxy belongs into ~/.m2/settings.xml."
            ) from late
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
            raise Unavailable(
                f"Maven cannot fetch the jars of {pom.name}:"
                f" {(errors or done.stdout.splitlines() or ['no output'])[0]}"
            )
        lines = [f"{_sha256(jar)}  {jar.name}\n" for jar in sorted(target.glob("*.jar"))]
        (target / _MANIFEST).write_text("".join(lines))
        target.rename(folder)


def _verify(folder: Path) -> None:
    """Raises Unavailable for a jar that is not as the manifest says (format of sha256sum)."""
    lines = (folder / _MANIFEST).read_text().splitlines()
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    present = {jar.name for jar in folder.glob("*.jar")}
    wrong = present ^ expected.keys()
    wrong |= {
        name for name in present & expected.keys() if _sha256(folder / name) != expected[name]
    }
    if wrong:
        raise Unavailable(
            f"{folder}: {', '.join(sorted(wrong)[:3])} of {len(wrong)} file(s) that differ from"
            f" {_MANIFEST}, written when they were fetched. Remove the folder; it is fetched again."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
