"""From the value of --restore to the checkpoint or savepoint that a job begins with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.streaming.flink_job import job_id_in
from runners.flink.checkpoints import METADATA, local_folder
from runners.flink.remote_files import NotListed, modified_at
from runners.flink.rest import FlinkRest
from runners.flink.snapshots import complete_snapshots
from transforms.model.errors import GuaranteeError

LATEST: Final = "latest"


def checkpoint_to_restore(
    rest: FlinkRest, wanted: str, ours: Collection[str], options: PipelineOptions
) -> str:
    """The address of the checkpoint, file:///... or of another file system.

    wanted: a path or address, or LATEST: the newest complete one of the cluster, but for those that
    Flink knows to be of other jobs. ours: the ids of the jobs of this destination. options: with
    those of Beam's file systems, such as --hdfs_host. Raises GuaranteeError where there is none, or
    it cannot be looked for, FlinkUnreachable.
    """
    FileSystems.set_options(options)
    if wanted != LATEST:
        folder = local_folder(wanted)
        if not (_is_complete(wanted) if folder is None else (folder / METADATA).is_file()):
            raise GuaranteeError(
                f"--restore={wanted}: there is no complete checkpoint or savepoint (the file"
                f" {METADATA} is missing). Give the path of one, or --restore=latest."
            )
        return wanted if folder is None else folder.absolute().as_uri()
    keys = rest.configuration()
    folders = [
        address
        for key in ("state.checkpoints.dir", "state.savepoints.dir")
        if (address := keys.get(key))
    ]
    try:
        for address in complete_snapshots(folders):
            if made_by(rest, address) in (None, *ours):
                return address
    except NotListed as error:
        raise GuaranteeError(
            f"--restore=latest: this process cannot list the folder {error}. Install Beam's extra"
            " for it (apache-beam[gcp] for gs://, [aws] for s3://, [hadoop] for hdfs://) and give"
            " it access; or give the path of the newest checkpoint, as `payment-pipeline status"
            " --flink_master=...` or Flink's web page shows it: --restore=PATH."
        ) from error
    raise GuaranteeError(
        "--restore=latest: no complete checkpoint or savepoint of this destination's jobs lies in"
        f" {' or '.join(folders)}, as far as this machine can see. Give the path of one, or use"
        " --from_tables."
    )


def _is_complete(address: str) -> bool:
    """True also where this process cannot look: Flink may see it, and fails the job if not."""
    try:
        return bool(modified_at(address, METADATA))
    except NotListed:
        return True


def made_by(rest: FlinkRest, checkpoint: str) -> str | None:
    """The id of the streaming job that has made a checkpoint; None where Flink does not know.

    Of a job of another program it is the name that the job has in Flink, which is no id of ours.
    Flink names folders after the ids that it has given the jobs: JOB/chk-N, and savepoint-X with
    the begin of the id
    (https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/savepoints/#triggering-savepoints),
    and forgets jobs that have ended some time ago. Raises FlinkUnreachable.
    """
    folder, last = checkpoint.rstrip("/").split("/")[-2:]
    if last.startswith("savepoint-"):
        jid = last.split("-")[1]
        made = [job["name"] for job in rest.jobs() if jid and job["jid"].startswith(jid)]
    else:
        # A copy may lie in any folder, also in one whose name an id begins with.
        made = [job["name"] for job in rest.jobs() if job["jid"] == folder]
    return (job_id_in(made[0]) or made[0]) if len(made) == 1 else None
