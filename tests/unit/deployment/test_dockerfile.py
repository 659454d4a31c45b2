"""deploy/Dockerfile: its stages, the files that it copies, and the versions that it installs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.__main__ import main
from runners import worker_pool

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
INSTRUCTIONS = ("FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD")


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest of its line). Raises ValueError for what is none."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            if name not in INSTRUCTIONS:
                raise ValueError(line)
            found.append((name, rest.strip()))
    return found


def stages() -> list[list[tuple[str, str]]]:
    """Each begins with its FROM."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(DOCKERFILE.read_text()):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for each, rest in stage if each == name]


def test_what_is_no_instruction_is_noticed() -> None:
    assert instructions("# one\nRUN a \\\n b\n") == [("RUN", "a   b")]
    with pytest.raises(ValueError, match="INSTALL x"):
        instructions("INSTALL x")


def test_the_packages_are_built_apart_from_the_image_that_runs() -> None:
    build, final = stages()
    assert of(build, "FROM") == ["python:3.11-slim AS build"]
    assert of(final, "FROM") == ["python:3.11-slim"]
    assert of(final, "RUN") == []
    (copied,) = of(final, "COPY")
    (folder,) = {path for path in copied.split() if not path.startswith("--from=build")}
    assert of(build, "RUN")[0] == f"python -m venv {folder}"
    assert all(env.startswith(f"PATH={folder}/bin:") for env in of(build, "ENV") + of(final, "ENV"))
    (user,) = of(final, "USER")
    assert not user.startswith(("0", "root"))


def test_every_file_that_is_copied_is_there_and_none_of_the_package_is_left_out() -> None:
    copied = [path for rest in of(stages()[0], "COPY") for path in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    packages = re.findall(r'"(\w+)\.\*"', (ROOT / "setup.py").read_text())
    assert {*packages, "setup.py", "pyproject.toml", "requirements.lock"} == set(copied)


def test_all_packages_come_from_the_lock() -> None:
    installs = [run for run in of(stages()[0], "RUN") if "pip install" in run]
    assert [run.partition("--no-cache-dir ")[2] for run in installs] == [
        "-r requirements.lock",
        "--no-deps .",
    ]


def test_versions_equal_the_lock_and_the_interpreter_of_setup() -> None:
    setup, lock = (ROOT / "setup.py").read_text(), (ROOT / "requirements.lock").read_text()
    locked = dict(
        line.split("==") for line in lock.lower().replace("_", "-").split() if "=" in line
    )
    pinned = re.findall(r'^ +"([\w-]+)(?:\[\w+\])?==([\d.]+)"', setup, re.MULTILINE)
    assert len(pinned) > 8
    for name, wanted in pinned:
        assert locked[name] == wanted, name
    assert 'python_requires=">=3.11,<3.12"' in setup


def test_the_image_starts_the_worker_pool_on_the_port_that_it_is_given() -> None:
    final = stages()[1]
    (entry,), (port,) = of(final, "ENTRYPOINT"), of(final, "CMD")
    assert json.loads(entry) == ["python", "-m", worker_pool.__name__]
    assert json.loads(port) == ["50000"]


def test_the_command_that_the_job_calls_is_installed() -> None:
    assert f"payment-pipeline={main.__module__}:main" in (ROOT / "setup.py").read_text()
