"""The Java that servers of the JVM are started with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

JAVA_VERSION: Final = 17


class Unavailable(RuntimeError):
    """Something that must be installed, or reached, is missing; the message says what to do."""


def java_command() -> str:
    """The path of a Java 17: of JAVA_HOME, if it is set, else the one on PATH.

    Raises Unavailable, in one line, when there is none or when it has another version.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if found is None:
        place = f"below JAVA_HOME={home}" if home else "on PATH"
        raise Unavailable(
            f"Java {JAVA_VERSION} is missing ({place}). Install a JRE {JAVA_VERSION}"
            f" (Debian, Ubuntu: openjdk-{JAVA_VERSION}-jre-headless), or let JAVA_HOME name one."
        )
    shown = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    if match is None or int(match[1]) != JAVA_VERSION:
        raise Unavailable(
            f"Java {JAVA_VERSION} is needed, but {found} is"
            f" {f'version {match[1]}' if match else 'no Java that runs'}. Install a JRE"
            f" {JAVA_VERSION} (Debian, Ubuntu: openjdk-{JAVA_VERSION}-jre-headless), or let"
            " JAVA_HOME name one."
        )
    return found
