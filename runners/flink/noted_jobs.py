"""Whose a checkpoint is, noted beside the checkpoints.

Flink names their folders after its own ids of the jobs, and forgets the jobs with the JobManager.
"""

from __future__ import annotations

from typing import Final

from runners.flink.checkpoints import local_folder, on_disk
from runners.flink.remote_files import create_empty, modified_at

_NOTES: Final = "payment-pipeline"
_FILE: Final = "job"


class NotNoted(RuntimeError):
    """Nothing could be written beside the checkpoints; the text says why."""


def note_job(checkpoints: str, flink_id: str, job_id: str) -> None:
    """Notes that Flink runs our job `job_id` under the id `flink_id`.

    checkpoints: address of the folder of all checkpoints. Raises NotNoted.
    """
    folder, name = local_folder(checkpoints), f"{_NOTES}/{flink_id}/{job_id}/{_FILE}"
    try:
        if folder is None:
            create_empty(f"{checkpoints.rstrip('/')}/{name}")
            return
        if not folder.is_dir():  # the cluster's disk is that of another machine
            raise NotNoted(f"{checkpoints} is no folder of this machine")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except (ValueError, ImportError, OSError) as error:
        raise NotNoted(f"{checkpoints}: {error}") from error


def noted_jobs(checkpoints: str) -> dict[str, str]:
    """Flink's id -> ours, of every job that was noted there.

    Raises NotListed where the folder cannot be looked at.
    """
    folder, pattern = local_folder(checkpoints), f"{_NOTES}/*/*/{_FILE}"
    places = (
        [place for _, place in modified_at(checkpoints, pattern)]
        if folder is None
        else [place.as_posix() for _, place in on_disk(folder, pattern)]
    )
    return {flink_id: job_id for *_, flink_id, job_id in (place.split("/") for place in places)}
