"""A class path that the job server does not send along with each job.

Beam's job server uploads all of `java.class.path` with each job, and each TaskManager fetches it
when a job starts or restarts there: 200 MB, which took 20 s at the submission and again after each
kill of a TaskManager. A cluster that `flink up` starts has the same jars on its own class path. So
the job server gets one small jar in `java.class.path`, and the others by the manifest of an agent:
https://docs.oracle.com/en/java/javase/17/docs/api/java.instrument/java/lang/instrument/package-summary.html
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

# An agent needs a class with `premain`; this one only keeps a reference.
_AGENT_CLASS: Final = "javassist.util.HotSwapAgent"
_LINE_BYTES: Final = 72


def unsent_class_path(jars: Path, agent: Path) -> list[str]:
    """The flags of `java` for all jars of a folder. agent: the jar that is written for it."""
    found = sorted(jars.glob("*.jar"))
    manifest = {
        "Manifest-Version": "1.0",
        "Premain-Class": _AGENT_CLASS,
        "Can-Redefine-Classes": "true",
        "Class-Path": " ".join(jar.as_uri() for jar in found),
    }
    lines = [part for key, value in manifest.items() for part in _wrapped(f"{key}: {value}")]
    with zipfile.ZipFile(agent, "w") as content:
        content.writestr("META-INF/MANIFEST.MF", "".join(f"{line}\r\n" for line in [*lines, ""]))
    smallest = min(found, key=lambda jar: jar.stat().st_size)
    return [f"-javaagent:{agent}", "-cp", str(smallest)]


def _wrapped(line: str) -> list[str]:
    """A manifest's line has at most 72 bytes; a continuation begins with a blank.

    https://docs.oracle.com/en/java/javase/17/docs/specs/jar/jar.html#notes-on-manifest-and-signature-files
    """
    lines = [line[:_LINE_BYTES]]
    rest = line[_LINE_BYTES:]
    step = _LINE_BYTES - 1
    return lines + [" " + rest[start : start + step] for start in range(0, len(rest), step)]
