"""Jars come from Maven as a whole or not at all, and are checked before each use."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runners import java, maven
from runners.flink import version
from runners.java import Unavailable, java_command
from runners.maven import cache_folder, jars_of

POM = version.POM


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(maven.shutil, "which", lambda name: f"/bin/{name}")
    return tmp_path / "cache"


class Maven:
    """In the place of the command: writes two jars, or fails."""

    def __init__(self, status: int = 0) -> None:
        self.commands: list[list[str]] = []
        self._status = status

    def __call__(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        (target,) = [part for part in command if part.startswith("-DoutputDirectory=")]
        folder = Path(target.partition("=")[2])
        folder.mkdir()
        (folder / "a.jar").write_bytes(b"a")
        if self._status:
            return subprocess.CompletedProcess(command, 1, "[INFO] x\n[ERROR] no route to host\n")
        (folder / "b.jar").write_bytes(b"b")
        return subprocess.CompletedProcess(command, 0, "")


def test_jars_are_fetched_once_with_strict_checksums(cache: Path, monkeypatch) -> None:
    fetched = Maven()
    monkeypatch.setattr(maven.subprocess, "run", fetched)
    folder = jars_of(POM)
    assert folder == jars_of(POM)
    assert len(fetched.commands) == 1 and "-C" in fetched.commands[0]
    assert folder.name.startswith(f"flink-{version.FLINK}-")
    assert {file.name for file in folder.iterdir()} == {"a.jar", "b.jar", "SHA256SUMS"}
    assert (folder / "SHA256SUMS").read_text() == "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}.jar\n" for name in "ab"
    )


def test_a_fetch_that_fails_leaves_nothing(cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(maven.subprocess, "run", Maven(status=1))
    with pytest.raises(Unavailable, match="no route to host") as said:
        jars_of(POM)
    assert "\n" not in str(said.value)
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
    monkeypatch.setattr(maven.subprocess, "run", Maven())
    assert jars_of(POM).is_dir()


@pytest.mark.parametrize("name", ["a.jar", "b.jar", "c.jar"])
def test_a_jar_that_was_changed_removed_or_added_is_found(
    name: str, cache: Path, monkeypatch
) -> None:
    monkeypatch.setattr(maven.subprocess, "run", Maven())
    folder = jars_of(POM)
    if name == "b.jar":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"other")
    with pytest.raises(Unavailable, match=f"{name} .*Remove the folder"):
        jars_of(POM)


def test_without_maven_one_line_says_so(cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(maven.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="Maven is missing") as said:
        jars_of(POM)
    assert "\n" not in str(said.value)


def test_the_cache_is_in_the_checkout(monkeypatch) -> None:
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    assert cache_folder() == Path(__file__).absolute().parents[3] / ".cache"


def test_an_installed_package_keeps_jars_in_the_users_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    monkeypatch.setattr(maven, "__file__", str(tmp_path / "site-packages" / "runners" / "m.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "payment-pipeline"


def test_without_java_one_line_says_so(monkeypatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"Java 17 is missing .*Install a JRE 17") as said:
        java_command()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("shown", "word"),
    [
        ('openjdk version "11.0.2" 2019', "version 11"),
        ('java version "1.8.0_292"', "version 8"),
        ("Unable to locate a Java Runtime", "no Java that runs"),
    ],
)
def test_another_java_is_named(shown: str, word: str, monkeypatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: "/bin/java")
    monkeypatch.setattr(
        java.subprocess,
        "run",
        lambda *a, **k: subprocess.CompletedProcess(a, 0, "", shown),
    )
    with pytest.raises(Unavailable, match=word):
        java_command()
