"""From the value of --restore to the checkpoint or savepoint that a job begins with."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pipeline.streaming.flink_job import job_id_in
from runners.flink.checkpoints import METADATA, complete_snapshots
from runners.flink.rest import FlinkRest
from transforms.model.errors import GuaranteeError

LATEST: Final = "latest"


def checkpoint_to_restore(rest: FlinkRest, wanted: str, ours: Collection[str]) -> str:
    """The address of the checkpoint, file:///... or of another file system.

    wanted: a path or address, or LATEST: the newest complete one of the cluster, but for those that
    Flink knows to be of other jobs. ours: the ids of the jobs of this destination. Raises
    GuaranteeError where there is none, FlinkUnreachable.
    """
    if wanted != LATEST:
        folder = _local(wanted)
        if folder is not None and not (folder / METADATA).is_file():
            raise GuaranteeError(
                f"--restore={wanted}: there is no complete checkpoint or savepoint (the file"
                f" {METADATA} is missing). Give the path of one, or --restore=latest."
            )
        return wanted if folder is None else folder.absolute().as_uri()
    keys = rest.configuration()
    folders = [
        _local(keys.get(key, "")) for key in ("state.checkpoints.dir", "state.savepoints.dir")
    ]
    for place in complete_snapshots(folder for folder in folders if folder is not None):
        address = place.absolute().as_uri()
        if made_by(rest, address) in (None, *ours):
            return address
    raise GuaranteeError(
        "--restore=latest: no complete checkpoint or savepoint of this destination's jobs lies in"
        f" {keys.get('state.checkpoints.dir')}, as far as this machine can see. Give the path of"
        " one, or use --from_tables."
    )


def made_by(rest: FlinkRest, checkpoint: str) -> str | None:
    """The id of the streaming job that has made a checkpoint; None where Flink does not know.

    Flink names folders after the ids that it has given the jobs: JOB/chk-N, and savepoint-X with
    the begin of the id
    (https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/savepoints/#triggering-savepoints),
    and forgets jobs that have ended some time ago. Raises FlinkUnreachable.
    """
    folder, last = checkpoint.rstrip("/").split("/")[-2:]
    jid = last.split("-")[1] if last.startswith("savepoint-") else folder
    made = [job["name"] for job in rest.jobs() if jid and job["jid"].startswith(jid)]
    return job_id_in(made[0]) if len(made) == 1 else None


def _local(address: str) -> Path | None:
    """The folder of a path or of file:///...; None for another file system, and for ""."""
    parts = urlsplit(address)
    if parts.scheme not in ("", "file") or not address:
        return None
    return Path(unquote(parts.path) if parts.scheme else address)
