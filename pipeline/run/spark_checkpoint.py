"""Where a job of Spark Structured Streaming stopped, as its checkpoint folder says it.

Before a micro-batch N Spark writes `offsets/N`, behind it `commits/N`; each is text: a line `v1`,
then JSON (org.apache.spark.sql.execution.streaming.OffsetSeqLog and CommitLog, of Spark 3.5.7):

    v1
    {"batchWatermarkMs":1700000000000,"batchTimestampMs":1700000001000,"conf":{...}}
    {"payments":{"0":123,"1":45}}

The last lines are the sources, one each: for Kafka where the batch ends, by topic and partition,
exclusive. A commit has `nextBatchWatermarkMs`, what the next batch would have judged by. So a batch
that has offsets and no commit may be in the sink or not, and the job itself would run it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.model.errors import GuaranteeError

_VERSION: Final = "v1"
_NO_DATA: Final = "-"
"""Stands for a source that has had nothing yet (OffsetSeqLog.SERIALIZED_VOID_OFFSET)."""

_BATCH: Final = re.compile(r"\d{1,18}", re.ASCII)
_MS_US: Final = 1_000


@dataclass(frozen=True)
class OldJob:
    """Where the old job stopped. batch: the newest one that it has committed. offsets: topic ->
    partition -> the first offset that it has not read. watermark_us: what its next batch would have
    judged by, microseconds since 1970; None: it had none yet.
    """

    batch: int
    offsets: Mapping[str, Mapping[int, int]]
    watermark_us: int | None


def read_checkpoint(path: str) -> OldJob:
    """path: the checkpoint folder, or a file of its `offsets/`, whose batch counts as committed
    unless a folder `commits` beside it lacks it. Raises GuaranteeError with --start_offsets.
    """
    try:
        return _read(path)
    except (OSError, ValueError) as error:  # ValueError: a file system that Beam does not know
        raise _refused(path, f"it cannot be read ({error})", "Check the path.") from error


def _read(path: str) -> OldJob:
    folder, _, name = path.rpartition("/")
    root = folder.rpartition("/")[0] if folder.endswith("/offsets") else None
    offsets, commits = _batches(f"{path}/offsets"), _batches(f"{path}/commits")
    if offsets or commits:
        if not commits:
            raise _refused(
                path,
                "no batch of the job is committed, so nothing says what its table holds",
                "Let the old job finish a batch, or use --start.",
            )
        batch, root = max(commits), path
        if batch not in offsets:
            raise _refused(
                path,
                f"batch {batch} is committed, but offsets/{batch} is not there",
                "Restore the folder, or give a file of offsets/.",
            )
    else:
        if not _BATCH.fullmatch(name) or not FileSystems.exists(path):
            raise _refused(
                path,
                "it is neither a checkpoint folder with offsets/ and commits/, nor a file of"
                " offsets/, whose name is a batch's number",
                "Give the checkpointLocation of the old job's query.",
            )
        batch = int(name)
        beside = _batches(f"{root}/commits") if root is not None else set()
        if beside and batch not in beside:
            raise _refused(
                path,
                f"batch {batch} is not committed, so its rows may be in the job's table or not;"
                f" the newest that is, is {max(beside)}",
                "Give the checkpoint folder itself.",
            )
        if not beside:
            root = None
    file = path if root is None else f"{root}/offsets/{batch}"
    metadata, *sources = _lines(file, path)
    marks = [_watermark(metadata, "batchWatermarkMs", file, path)]
    if root is not None:
        commit = f"{root}/commits/{batch}"
        (said, *_) = _lines(commit, path)
        # Of Spark 2.1 and 2.2 a commit says nothing.
        marks.append(_watermark(said, "nextBatchWatermarkMs", commit, path, needed=False))
    # Zero is Spark's word for no watermark.
    watermark_us = max(marks) * _MS_US or None
    return OldJob(batch, _offsets(sources, file, path), watermark_us)


def _batches(folder: str) -> set[int]:
    """Numbers of the batches that have a file there; empty where there is no such folder."""
    (found,) = FileSystems.match([f"{folder}/*"])
    names = (each.path.rpartition("/")[2] for each in found.metadata_list)
    return {int(name) for name in names if _BATCH.fullmatch(name)}


def _lines(file: str, path: str) -> list[str]:
    """The lines behind the version, at least one."""
    with FileSystems.open(file, compression_type=CompressionTypes.UNCOMPRESSED) as opened:
        content: bytes = opened.read()
    try:
        version, *lines = content.decode().splitlines()
    except ValueError as error:
        raise _refused(path, f"{file} is no text of Spark's ({error})", _COPY) from error
    if version != _VERSION:
        raise _refused(
            path,
            f"{file} begins with {version[:40]!r}, and only {_VERSION} is known",
            "Give the offsets as a file in that format: three lines, v1, the watermark, the"
            " offsets.",
        )
    if not lines:
        raise _refused(path, f"{file} ends behind its version", _COPY)
    return lines


_COPY: Final = "It may have been copied while it was written: stop the old job, and copy it again."


def _watermark(text: str, name: str, file: str, path: str, needed: bool = True) -> int:
    """Milliseconds; 0 for none."""
    found = _json(text, file, path).get(name, None if needed else 0)
    if type(found) is not int or found < 0:
        raise _refused(path, f"{file}: {name} is {found!r}, not milliseconds", _COPY)
    return found


def _offsets(sources: list[str], file: str, path: str) -> dict[str, dict[int, int]]:
    known = [source for source in sources if source != _NO_DATA]
    if len(sources) > 1:
        raise _refused(
            path,
            f"{file} has {len(sources)} sources, and payments come from one",
            "Write a file in this format with the source that is to go on, and give that.",
        )
    if not known:
        raise _refused(
            path, f"{file} has no offset of a source", "The old job has read nothing: use --start."
        )
    try:
        found = msgspec.json.decode(known[0], type=dict[str, dict[str, int]])
        offsets = {
            topic: {int(partition): offset for partition, offset in partitions.items()}
            for topic, partitions in found.items()
        }
        if any(offset < 0 for parts in offsets.values() for offset in parts.values()):
            raise ValueError("a negative offset")
    except ValueError as error:
        raise _refused(
            path, f"{file} has no offsets of Kafka ({error}): {known[0][:100]}", "Use --start."
        ) from error
    return offsets


def _json(text: str, file: str, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except ValueError as error:
        raise _refused(path, f"{file}: {text[:100]} is no JSON ({error})", _COPY) from error


def _refused(path: str, why: str, fix: str) -> GuaranteeError:
    return GuaranteeError(f"--start_offsets={path}: {why}. {fix}")
