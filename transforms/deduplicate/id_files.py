"""The files of `--state_dir`: the ids of a destination as of its last runs.

A file is written under the id of a run before the run is claimed, and never changed. It counts only
for a run that follows that one in the chain, so one of a run that never became visible is read by
none. It adds to the file of the run before; so that no chain of files grows long, it takes in those
before it that are not much larger, as an LSM tree does, and now and then all of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from numpy.typing import NDArray

from transforms.deduplicate.ids_format import (
    RANGES,
    IdsHeader,
    IdsUnreadable,
    encode_file,
    read_header,
    read_section,
    section_of,
    sections_of,
    skip_to_section,
)
from transforms.deduplicate.remembered_ids import RememberedIds, changed_by
from transforms.deduplicate.shard_state import joined_groups
from transforms.model.errors import UsageError
from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints

_LOG = logging.getLogger(__name__)

_SUFFIX: Final = ".ids"
_BIN: Final = "application/octet-stream"

_NOT_REACHED: Final = (OSError, GoogleAPIError, GoogleAuthError)
"""What Beam's file systems raise: of this machine, of HDFS and S3, and of Google Cloud Storage."""


class IdFiles:
    """folder: of any file system that Beam knows. destination: name of the one that it is for."""

    def __init__(self, folder: str, destination: str) -> None:
        self._folder = folder
        self._destination = destination

    def check_folder(self) -> None:
        """Raises UsageError where there can be no such folder on this machine. Changes nothing.

        Whether a store elsewhere answers is known only when it is asked.
        """
        if "://" in self._folder:
            return
        there = Path(self._folder).absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UsageError(
                f"--state_dir={self._folder}: {there} is no folder that can be written to. Give a"
                " folder, on a file system that Beam knows, or none."
            )

    def make_folder(self) -> bool:
        """Whether it is there then. The run needs no folder, so else that is said, and it goes on
        without.
        """
        try:
            if not FileSystems.exists(self._folder):
                FileSystems.mkdirs(self._folder)
        except _NOT_REACHED as error:
            _LOG.warning("--state_dir=%s: ids are loaded from the tables: %s", self._folder, error)
            return False
        return True

    def read(
        self, run_id: str, live_ids: int, expired_through: int | None
    ) -> tuple[RememberedIds, list[IdsHeader]]:
        """The ids as of that run, and the headers of the files that hold them, newest first.

        live_ids: of the run's record. expired_through: ids above this bucket are wanted; None: all.
        Raises IdsUnreadable.
        """
        with ExitStack() as stack:
            files = list(self._open_all(run_id, stack))
            newest = files[0][1]
            self._check(newest, live_ids, expired_through)
            ids = RememberedIds.of_ranges(_sections(files), _at_most(files), newest.expired_through)
        if ids.live != _above(newest.live, newest.expired_through):
            raise IdsUnreadable(f"{self._path(run_id)} and those before it hold other ids")
        return ids, [header for _, header in files]

    def read_ranges(
        self, run_id: str, live_ids: int, expired_through: int | None, numbers: range
    ) -> RememberedIds:
        """As `read`, but the ids of these of the 64 hash ranges alone, and no others are read."""
        with ExitStack() as stack:
            files = list(self._open_all(run_id, stack))
            newest = files[0][1]
            self._check(newest, live_ids, expired_through)
            for file, header in files:
                skip_to_section(file, header, numbers.start)
            return RememberedIds.of_ranges(
                _sections(files, numbers), _at_most(files, numbers), newest.expired_through
            )

    def _check(self, newest: IdsHeader, live_ids: int, expired_through: int | None) -> None:
        """Raises IdsUnreadable where the file is not what a run needs."""
        path = self._path(newest.run_id)
        if newest.live_ids != live_ids:
            raise IdsUnreadable(
                f"{path} is of a run with {newest.live_ids} live ids, and the ledger has {live_ids}"
            )
        if not _reaches(newest.expired_through, expired_through):
            raise IdsUnreadable(f"{path} does not reach back as far as this run needs")

    def write(
        self,
        run_id: str,
        live_ids: int,
        before: RememberedIds,
        files: Sequence[IdsHeader],
        changed: Sequence[bytes],
        live_changes: Mapping[int, int],
    ) -> list[IdsHeader]:
        """Writes the file of a run that is about to be claimed; returns the headers as `read` does.

        live_ids: of its record. before: the ids that it began with. files: that hold them; empty
        where they came from the tables. changed, live_changes: see RememberedIds.advance. Where the
        file cannot be written, that is logged, and there are no headers: the run needs none.
        """
        fingerprints, buckets = joined_groups(changed)
        new = sections_of(fingerprints, buckets)
        try:
            below, sections, ids = self._taken_in(files, new, len(buckets))
        except IdsUnreadable:
            below = []
        if not below or 2 * ids >= below[-1].ids:
            below, ids = [], len(buckets) + sum(before.live.values())
            sections = [
                section_of(*before.of_shard(number, RANGES).entries()) + section
                for number, section in enumerate(new)
            ]
        header = IdsHeader(
            destination=self._destination,
            run_id=run_id,
            on_top_of=below[0].run_id if below else None,
            expired_through=before.expired_through,
            live=changed_by(before.live, live_changes),
            live_ids=live_ids,
            ids=ids,
            sections=[],
        )
        try:
            with self._created(run_id) as file:
                for piece in encode_file(header, sections):
                    file.write(piece)
        except _NOT_REACHED as error:
            _LOG.warning(
                "--state_dir=%s: the ids are not kept for the next process, which loads them from"
                " the tables: %s",
                self._folder,
                error,
            )
            return []
        return [header, *below]

    def remove_others(self, files: Sequence[IdsHeader]) -> None:
        """Removes the files that these do not need. files: of a run that is COMMITTED."""
        needed = {self._path(header.run_id) for header in files}
        try:
            (found,) = FileSystems.match([f"{self._folder.rstrip('/')}/*{_SUFFIX}"])
            left = [each.path for each in found.metadata_list if each.path not in needed]
            if left:
                FileSystems.delete(left)
        except _NOT_REACHED as error:
            # Another process with the same folder may have removed it; the next run tries again.
            _LOG.info("not every file of ids that is needed no more was removed: %s", error)

    def _open_all(self, run_id: str, stack: ExitStack) -> Iterator[tuple[BinaryIO, IdsHeader]]:
        seen: set[str] = set()
        wanted: str | None = run_id
        while wanted is not None:
            if wanted in seen:
                raise IdsUnreadable(f"{self._path(wanted)} is on top of itself")
            file, header = stack.enter_context(self._opened(wanted))
            yield file, header
            seen.add(wanted)
            wanted = header.on_top_of

    @contextmanager
    def _opened(self, run_id: str) -> Iterator[tuple[BinaryIO, IdsHeader]]:
        """The file of a run at its first section, and its header. Raises IdsUnreadable, also where
        another machine removes the file meanwhile.
        """
        path = self._path(run_id)
        try:
            if not FileSystems.exists(path):
                raise IdsUnreadable(f"{path} is not there")
            with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
                header = read_header(file, path)
                if (header.destination, header.run_id) != (self._destination, run_id):
                    raise IdsUnreadable(f"{path} is of {header.destination}, run {header.run_id}")
                yield file, header
        except _NOT_REACHED as error:
            raise IdsUnreadable(f"{path} cannot be read ({error})") from error

    def _taken_in(
        self, files: Sequence[IdsHeader], sections: list[bytes], ids: int
    ) -> tuple[list[IdsHeader], list[bytes], int]:
        """What is left of the files, once those that are not much larger than a new one of so many
        ids are in it; the new one's sections, and its ids. Raises IdsUnreadable.
        """
        left = list(files)
        while len(left) > 1 and left[0].ids <= 2 * ids:
            with self._opened(left[0].run_id) as (file, header):
                sections = [
                    read_section(file, header, number) + section
                    for number, section in enumerate(sections)
                ]
            ids += left.pop(0).ids
        return left, sections, ids

    def _created(self, run_id: str) -> BinaryIO:
        return cast(
            BinaryIO,
            FileSystems.create(
                self._path(run_id), _BIN, compression_type=CompressionTypes.UNCOMPRESSED
            ),
        )

    def _path(self, run_id: str) -> str:
        return f"{self._folder.rstrip('/')}/{run_id}{_SUFFIX}"


def _sections(
    files: Sequence[tuple[BinaryIO, IdsHeader]], numbers: range = range(RANGES)
) -> Iterator[tuple[Fingerprints, NDArray[np.int32]]]:
    """The ids of all files, range by range. files: each at the first of the ranges."""
    for number in numbers:
        yield joined_groups([read_section(file, header, number) for file, header in files])


def _at_most(files: Sequence[tuple[BinaryIO, IdsHeader]], numbers: range = range(RANGES)) -> int:
    """No less than the ids that these ranges of the files hold: their bytes say it."""
    sizes = (
        size for _, header in files for size, _ in header.sections[numbers.start : numbers.stop]
    )
    return sum(size // FINGERPRINT_BYTES for size in sizes)


def _reaches(have: int | None, wanted: int | None) -> bool:
    """Whether ids that are complete above `have` hold all above `wanted`."""
    if have is None or wanted is None:
        return have is None
    return have <= wanted


def _above(live: Mapping[int, int], expired_through: int | None) -> dict[int, int]:
    return {
        bucket: ids
        for bucket, ids in live.items()
        if expired_through is None or bucket > expired_through
    }
