"""From the value of --restore to the checkpoint or savepoint that a job begins with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.streaming.flink_job import FlinkJob, job_id_in
from runners.flink.checkpoints import METADATA, local_folder
from runners.flink.metadata_file import damage_in
from runners.flink.noted_jobs import NotNoted, note_job, noted_jobs
from runners.flink.remote_files import NotListed, modified_at, read_file
from runners.flink.rest import FlinkRest
from runners.flink.snapshots import complete_snapshots
from transforms.model.errors import GuaranteeError

LATEST: Final = "latest"

_CHECKPOINTS: Final = "state.checkpoints.dir"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """address: of the checkpoint, file:///... or of another file system. made_by: the id of the
    streaming job that has made it, None where that is not known. Of a job of another program it is
    the name that the job has in Flink, which is no id of ours.
    """

    address: str
    made_by: str | None


def checkpoint_to_restore(
    rest: FlinkRest, wanted: str, ours: Collection[str], options: PipelineOptions
) -> Restored:
    """The checkpoint or savepoint that the job begins with.

    wanted: a path or address, or LATEST: the newest complete one of the cluster that is known to be
    of this destination's jobs. ours: their ids. options: with those of Beam's file systems, such as
    --hdfs_host. Raises GuaranteeError where there is none, or it cannot be looked for,
    FlinkUnreachable.
    """
    FileSystems.set_options(options)
    if wanted != LATEST:
        address = _checked(wanted)
        return Restored(address, _maker_of(address, _makers(rest)))
    return _newest(rest, ours)


def _checked(wanted: str) -> str:
    """The address of a checkpoint that is there. Raises GuaranteeError where it is not."""
    folder = local_folder(wanted)
    if not (_is_complete(wanted) if folder is None else (folder / METADATA).is_file()):
        raise GuaranteeError(
            f"--restore={wanted}: there is no complete checkpoint or savepoint (the file"
            f" {METADATA} is missing). Give the path of one, or --restore=latest."
        )
    if damage := _damage_of(wanted):
        raise GuaranteeError(
            f"--restore={wanted}: the checkpoint is damaged: of its file {METADATA}, {damage}."
            " Nothing was changed. Give the path of an older one, or --restore=latest, which"
            " passes over it."
        )
    return wanted if folder is None else folder.absolute().as_uri()


def _newest(rest: FlinkRest, ours: Collection[str]) -> Restored:
    keys = rest.configuration()
    folders = [
        address for key in (_CHECKPOINTS, "state.savepoints.dir") if (address := keys.get(key))
    ]
    try:
        found = complete_snapshots(folders)
    except NotListed as error:
        raise GuaranteeError(
            f"--restore=latest: this process cannot list the folder {error}. Install Beam's extra"
            " for it (apache-beam[gcp] for gs://, [aws] for s3://, [hadoop] for hdfs://) and give"
            " it access; or give the path of the newest checkpoint, as `payment-pipeline status"
            " --flink_master=...` or Flink's web page shows it: --restore=PATH."
        ) from error
    makers = _makers(rest)
    mine = [address for address in found if _maker_of(address, makers) in ours]
    for address in mine:
        damage = _damage_of(address)
        if damage is None:
            return Restored(address, _maker_of(address, makers))
        _LOG.warning("%s is damaged, and passed over: of %s, %s", address, METADATA, damage)
    others = f" ({len(found)} are there of other or unknown jobs)" if found else ""
    if mine:
        others = f" ({len(mine)} are damaged)"
    raise GuaranteeError(
        "--restore=latest: no complete checkpoint or savepoint of this destination's jobs lies in"
        f" {' or '.join(folders)}, as far as this machine can see{others}. Give the path of one, or"
        " use --from_tables."
    )


def _is_complete(address: str) -> bool:
    """True also where this process cannot look: Flink may see it, and fails the job if not."""
    try:
        return bool(modified_at(address, METADATA))
    except NotListed:
        return True


def _damage_of(address: str) -> str | None:
    """What is wrong with the file; None where nothing shows, or this process cannot read it."""
    folder = local_folder(address)
    try:
        if folder is not None:
            return damage_in((folder / METADATA).read_bytes())
        # Of a library that is missing Beam says so here alone, in errors that one can catch.
        modified_at(address, METADATA)
        return damage_in(read_file(f"{address.rstrip('/')}/{METADATA}"))
    except NotListed:
        return None
    except FileNotFoundError:
        return "it is gone by now"


def note_maker(rest: FlinkRest, job: FlinkJob, job_id: str) -> None:
    """Makes the checkpoints of a job known as its own, also when Flink has forgotten it.

    job_id: our id of it. Raises FlinkUnreachable.
    """
    checkpoints = rest.configuration()[_CHECKPOINTS]
    try:
        note_job(checkpoints, job.jid, job_id)
    except NotNoted as error:
        _LOG.warning(
            "nothing can be noted beside the checkpoints (%s), so --restore=latest does not know"
            " them once Flink has forgotten the job: give their path then, --restore=PATH",
            error,
        )


def _makers(rest: FlinkRest) -> dict[str, str]:
    """Flink's id of a job -> ours, or its name in Flink where it is none of ours."""
    known = {job["jid"]: job_id_in(job["name"]) or job["name"] for job in rest.jobs()}
    checkpoints = rest.configuration().get(_CHECKPOINTS)
    try:
        return {**(noted_jobs(checkpoints) if checkpoints else {}), **known}
    except NotListed:
        return known


def _maker_of(checkpoint: str, makers: Mapping[str, str]) -> str | None:
    """Flink names folders JOB/chk-N, and savepoint-X with the begin of its id of the job.

    https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/savepoints/#triggering-savepoints
    """
    folder, last = checkpoint.rstrip("/").split("/")[-2:]
    if not last.startswith("savepoint-"):
        # A copy may lie in any folder, also in one whose name an id begins with.
        return makers.get(folder)
    begin = last.split("-")[1]
    found = [maker for flink_id, maker in makers.items() if begin and flink_id.startswith(begin)]
    return found[0] if len(found) == 1 else None
