"""File systems of Beam's, found by Beam through their schemes, as those of its extras are."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any, ClassVar, Final, NoReturn

from apache_beam.io.filesystem import FileMetadata, FileSystem

from runners.flink.metadata_file import MAGIC, PROPERTIES, WITH_PROPERTIES

METADATA_BYTES: Final = (
    MAGIC + WITH_PROPERTIES.to_bytes(4, "big") + bytes(20_000) + PROPERTIES + bytes(600)
)


def _unused(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError


class ListedFileSystem(FileSystem):
    """files: address -> seconds since 1970, 0.0 where the file system does not say. folders:
    whether it lists one level at a time, as HDFS does, or all files of a prefix, as buckets do.
    contents: address -> bytes; where there are none, those of a checkpoint's metadata.
    """

    files: ClassVar[dict[str, float]] = {}
    contents: ClassVar[dict[str, bytes]] = {}
    folders = False

    mkdirs = copy = rename = delete = split = join = _unused
    size = last_updated = _unused

    @classmethod
    def scheme(cls) -> str:
        return "listed"

    def create(self, path: str, *_: Any, **__: Any) -> BytesIO:
        self.files[path] = 1.0
        return BytesIO()

    def open(self, path: str, *_: Any, **__: Any) -> BytesIO:
        return BytesIO(self.contents.get(path, METADATA_BYTES))

    def has_dirs(self) -> bool:
        return self.folders

    def exists(self, path: str) -> bool:
        return any(file == path or file.startswith(f"{path}/") for file in self.files)

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, 1, self.files[path])

    def _url_dirname(self, url: str) -> str:
        return url.rpartition("/")[0]

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        if not self.folders:
            for file, written in self.files.items():
                if file.startswith(dir_or_prefix):
                    yield FileMetadata(file, 1, written)
            return
        below = f"{dir_or_prefix.rstrip('/')}/"
        names: dict[str, float] = {}
        for file, written in self.files.items():
            if file.startswith(below):
                names[file.removeprefix(below).partition("/")[0]] = written
        for name, written in names.items():
            yield FileMetadata(below + name, 1, written)


class UnreachableFileSystem(ListedFileSystem):
    """One whose server does not answer."""

    @classmethod
    def scheme(cls) -> str:
        return "unreachable"

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        raise ConnectionError("Connection refused")
