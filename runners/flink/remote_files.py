"""Files of gs://, s3://, hdfs:// ..., listed by Beam where the library for it is installed.

https://beam.apache.org/releases/pydoc/current/apache_beam.io.filesystems.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems

_BEAMS_NAME: Final = {"s3a": "s3", "s3p": "s3"}
"""Flink's names of S3 say which of its plugins reads it:
https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/deployment/filesystems/s3/
"""


class NotListed(RuntimeError):
    """A folder cannot be looked at from this process; the text says why."""


def modified_at(folder: str, pattern: str) -> list[tuple[float, str]]:
    """When each matching file was written, seconds since 1970, and the address of its folder.

    folder: an address with a scheme, as Flink has it. pattern: below it, such as `*/chk-*/NAME`,
    with a wildcard for any folder, but not in the last part. Raises NotListed.
    """
    scheme, beams = folder.partition("://")[0], _for_beam(folder.rstrip("/"))
    try:
        system = FileSystems.get_filesystem(beams)
        found = list(_matching(system, beams, pattern))
    except (ValueError, ImportError, OSError) as error:
        raise NotListed(f"{folder}: {error}") from error
    if len(found) > 1 and not all(seconds for seconds, _ in found):
        raise NotListed(f"{folder}: {scheme}:// does not say when its files were written")
    return [
        (seconds, f"{scheme}{file.removeprefix(beams.partition(':')[0])}".rpartition("/")[0])
        for seconds, file in found
    ]


def read_file(file: str) -> bytes:
    """The bytes of a file. Raises NotListed where it cannot be read from this process."""
    try:
        with FileSystems.open(_for_beam(file)) as opened:
            found: bytes = opened.read()
            return found
    except (ValueError, ImportError, OSError) as error:
        raise NotListed(f"{file}: {error}") from error


def create_empty(file: str) -> None:
    """Raises ValueError, ImportError or OSError where it cannot be written from this process."""
    FileSystems.create(_for_beam(file)).close()


def _for_beam(address: str) -> str:
    scheme, _, path = address.partition("://")
    return f"{_BEAMS_NAME.get(scheme, scheme)}://{path}"


def _matching(system: FileSystem, folder: str, pattern: str) -> Iterator[tuple[float, str]]:
    """A file system with folders lists one level at a time; the others all files of a prefix."""
    first, _, below = pattern.partition("/")
    if not system.has_dirs() or not below:
        yield from (
            (found.last_updated_in_seconds, found.path)
            for found in system.match([f"{folder}/{pattern}"])[0].metadata_list
        )
    elif "*" not in first:
        yield from _matching(system, f"{folder}/{first}", below)
    elif system.exists(folder):
        for found in system.match([f"{folder}/{first}"])[0].metadata_list:
            yield from _matching(system, found.path.rstrip("/"), below)
