"""--restore: the checkpoint that a job begins with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.streaming import restore as restore_module
from pipeline.streaming.flink_job import FlinkJob
from pipeline.streaming.restore import LATEST, checkpoint_to_restore, note_maker
from runners.flink.metadata_file import MAGIC
from tests.support.fake_flink import JID, JOB_ID, FakeFlink
from tests.support.listed_files import METADATA_BYTES, ListedFileSystem
from transforms.model.errors import GuaranteeError


def restored(flink: FakeFlink, wanted: str, job_id: str = JOB_ID) -> str:
    return checkpoint_to_restore(flink, wanted, [job_id], PipelineOptions([])).address


def made_by(flink: FakeFlink, address: str) -> str | None:
    """Of a checkpoint that this process cannot look at, or that is there."""
    return checkpoint_to_restore(flink, address, [], PipelineOptions([])).made_by


def latest(flink: FakeFlink, job_id: str = JOB_ID) -> str:
    return restored(flink, LATEST, job_id)


OLD = "c6e2"
"""Flink's id of a job that it has forgotten."""


@pytest.fixture
def flink(tmp_path: Path) -> FakeFlink:
    double = FakeFlink()
    (tmp_path / "checkpoints").mkdir()
    double.keys = {
        "state.checkpoints.dir": (tmp_path / "checkpoints").as_uri(),
        "state.savepoints.dir": (tmp_path / "save points").as_uri(),
    }
    return double


def complete(folder: Path, at: int) -> Path:
    """A complete checkpoint. at: seconds since 1970 when its last file was written."""
    folder.mkdir(parents=True)
    (folder / "_metadata").write_bytes(METADATA_BYTES)
    os.utime(folder / "_metadata", (at, at))
    return folder


def test_the_newest_complete_one_counts(flink: FakeFlink, tmp_path: Path) -> None:
    of_job = tmp_path / "checkpoints" / "b5d1"
    complete(of_job / "chk-9", at=10)
    newest = complete(of_job / "chk-10", at=20)
    (of_job / "chk-11").mkdir()
    assert latest(flink) == newest.as_uri()
    savepoint = complete(tmp_path / "save points" / "savepoint-b5d1-1", at=30)
    (tmp_path / "save points" / "savepoint-b5d1-2").mkdir()
    assert latest(flink) == savepoint.as_uri()


def test_the_newest_one_of_another_destination_is_passed_over(
    flink: FakeFlink, tmp_path: Path
) -> None:
    older = complete(tmp_path / "checkpoints" / OLD / "chk-1", at=10)
    note_maker(flink, FlinkJob(flink, OLD), "job of ours")
    complete(tmp_path / "checkpoints" / JID / "chk-9", at=20)
    assert latest(flink, "job of ours") == older.as_uri()
    assert latest(flink).endswith("chk-9")


@pytest.mark.parametrize("lies", [f"checkpoints/{OLD}/chk-1", f"save points/savepoint-{OLD}-0a1b"])
def test_after_the_end_of_the_cluster_the_notes_say_whose_each_is(
    flink: FakeFlink, tmp_path: Path, lies: str
) -> None:
    """Its jobs are not known to Flink any more; two destinations have used it."""
    of_ours = complete(tmp_path / lies, at=10)
    note_maker(flink, FlinkJob(flink, OLD), "job of ours")
    note_maker(flink, FlinkJob(flink, "d7f3"), "job of theirs")
    note_maker(flink, FlinkJob(flink, "d7f3"), "job of theirs")
    complete(tmp_path / "checkpoints" / "d7f3" / "chk-5", at=20)
    assert latest(flink, "job of ours") == of_ours.as_uri()
    assert latest(flink, "job of theirs").endswith("d7f3/chk-5")
    assert made_by(flink, of_ours.as_uri()) == "job of ours"


def test_one_of_an_unknown_job_is_not_taken_for_the_newest(
    flink: FakeFlink, tmp_path: Path
) -> None:
    place = complete(tmp_path / "checkpoints" / OLD / "chk-1", at=10)
    with pytest.raises(GuaranteeError, match=r"1 are there of other or unknown jobs"):
        latest(flink)
    assert restored(flink, str(place)) == place.as_uri()


def test_a_job_whose_checkpoints_lie_elsewhere_goes_on_without_a_note(
    flink: FakeFlink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for address in ((tmp_path / "elsewhere").as_uri(), "wasbs://bucket/checkpoints"):
        flink.keys["state.checkpoints.dir"] = address
        note_maker(flink, FlinkJob(flink, OLD), "job of ours")
        assert "give their path then" in caplog.records[-1].getMessage()
        assert made_by(flink, f"s3://bucket/{OLD}/chk-1") is None
    assert not (tmp_path / "elsewhere").exists()


def test_the_newest_one_of_another_program_is_passed_over(flink: FakeFlink, tmp_path: Path) -> None:
    older = complete(tmp_path / "checkpoints" / OLD / "chk-1", at=10)
    note_maker(flink, FlinkJob(flink, OLD), JOB_ID)
    complete(tmp_path / "checkpoints" / JID / "chk-9", at=20)
    flink.name = "WordCount"
    assert latest(flink) == older.as_uri()


def test_without_a_complete_one_the_message_says_what_to_do(
    flink: FakeFlink, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints" / "b5d1" / "chk-1").mkdir(parents=True)
    with pytest.raises(GuaranteeError) as refused:
        latest(flink)
    assert flink.keys["state.checkpoints.dir"] in refused.value.message
    assert "--from_tables" in refused.value.message


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Files of listed://, with the seconds since 1970 when they were written."""
    files: dict[str, float] = {}
    monkeypatch.setattr(ListedFileSystem, "files", files)
    monkeypatch.setattr(ListedFileSystem, "contents", {})
    return files


@pytest.mark.parametrize("folders", [True, False], ids=["with folders", "prefixes"])
def test_the_newest_in_a_file_system_that_beam_lists(
    flink: FakeFlink, bucket: dict[str, float], monkeypatch: pytest.MonkeyPatch, folders: bool
) -> None:
    monkeypatch.setattr(ListedFileSystem, "folders", folders)
    checkpoints, savepoints = "listed://bucket/flink/checkpoints", "listed://bucket/savepoints/"
    flink.keys = {"state.checkpoints.dir": checkpoints, "state.savepoints.dir": savepoints}
    note_maker(flink, FlinkJob(flink, OLD), JOB_ID)
    assert list(bucket) == [f"{checkpoints}/payment-pipeline/{OLD}/{JOB_ID}/job"]
    bucket[f"{checkpoints}/c6e2/chk-9/_metadata"] = 10.0
    bucket[f"{checkpoints}/c6e2/chk-10/_metadata"] = 20.0
    bucket[f"{checkpoints}/c6e2/chk-11/part"] = 30.0
    bucket[f"{checkpoints}/c6e2/shared/_metadata"] = 40.0
    assert latest(flink) == f"{checkpoints}/c6e2/chk-10"
    bucket["listed://bucket/savepoints/savepoint-c6e2-1/_metadata"] = 30.0
    assert latest(flink) == "listed://bucket/savepoints/savepoint-c6e2-1"


def test_a_file_system_that_tells_no_times_has_no_newest(
    flink: FakeFlink, bucket: dict[str, float]
) -> None:
    flink.keys = {"state.checkpoints.dir": "listed://bucket"}
    bucket["listed://bucket/b5d1/chk-1/_metadata"] = 0.0
    assert latest(flink) == "listed://bucket/b5d1/chk-1"
    bucket["listed://bucket/b5d1/chk-2/_metadata"] = 0.0
    with pytest.raises(GuaranteeError, match="does not say when its files were written"):
        latest(flink)


@pytest.mark.parametrize("scheme", ["wasbs", "hdfs", "unreachable"])
def test_a_folder_that_cannot_be_listed_is_refused_with_the_way_on(
    flink: FakeFlink, scheme: str
) -> None:
    """No library, one that is not installed or has no options, a server that does not answer."""
    flink.keys = {"state.checkpoints.dir": f"{scheme}://bucket/checkpoints"}
    with pytest.raises(GuaranteeError) as refused:
        latest(flink)
    assert f"cannot list the folder {scheme}://bucket/checkpoints: " in refused.value.message
    assert "apache-beam[gcp] for gs://" in refused.value.message
    assert "--restore=PATH" in refused.value.message


def test_a_path_becomes_an_address(flink: FakeFlink, tmp_path: Path) -> None:
    folder = complete(tmp_path / "chk-1", at=1)
    assert restored(flink, str(folder)) == folder.as_uri()
    assert restored(flink, folder.as_uri()) == folder.as_uri()


def test_another_file_system_is_left_to_flink(flink: FakeFlink) -> None:
    assert restored(flink, "s3://bucket/chk-1") == "s3://bucket/chk-1"


def test_whose_the_checkpoints_are_is_looked_for_once(
    flink: FakeFlink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside them lies a note for each job that there ever was."""
    asked = []
    monkeypatch.setattr(restore_module, "noted_jobs", lambda address: asked.append(address) or {})
    place = complete(tmp_path / "checkpoints" / JID / "chk-1", at=10)
    for wanted in (LATEST, str(place)):
        found = checkpoint_to_restore(flink, wanted, [JOB_ID], PipelineOptions([]))
        assert (found.address, found.made_by) == (place.as_uri(), JOB_ID)
    assert len(asked) == 2


def test_a_path_of_a_file_system_that_beam_lists_is_looked_at(
    flink: FakeFlink, bucket: dict[str, float]
) -> None:
    """Before the tables are claimed: Flink would find out after that."""
    with pytest.raises(GuaranteeError, match="listed://bucket/b5d1/chk-1: there is no complete"):
        restored(flink, "listed://bucket/b5d1/chk-1")
    bucket["listed://bucket/b5d1/chk-1/_metadata"] = 0.0
    assert restored(flink, "listed://bucket/b5d1/chk-1") == "listed://bucket/b5d1/chk-1"


DAMAGED = {"empty": b"", "another file": b"PK\x03\x04" * 9, "cut": METADATA_BYTES[:12_000]}


@pytest.mark.parametrize("damage", [*DAMAGED, "cut at once"])
def test_a_damaged_checkpoint_is_refused_before_anything_is_claimed(
    flink: FakeFlink, tmp_path: Path, bucket: dict[str, float], damage: str
) -> None:
    """Flink would find it out when the job before is ended and the tables are claimed."""
    broken = DAMAGED.get(damage, METADATA_BYTES[:6])
    folder = complete(tmp_path / "chk-1", at=1)
    (folder / "_metadata").write_bytes(broken)
    with pytest.raises(GuaranteeError, match="the checkpoint is damaged") as refused:
        restored(flink, str(folder))
    assert "Nothing was changed" in refused.value.message
    address = "listed://bucket/b5d1/chk-1"
    bucket[f"{address}/_metadata"] = 0.0
    ListedFileSystem.contents[f"{address}/_metadata"] = broken
    with pytest.raises(GuaranteeError, match="the checkpoint is damaged"):
        restored(flink, address)


def test_latest_passes_over_a_damaged_one_and_says_so(
    flink: FakeFlink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_job = tmp_path / "checkpoints" / JID
    older, newest = complete(of_job / "chk-1", at=10), complete(of_job / "chk-2", at=20)
    (newest / "_metadata").write_bytes(METADATA_BYTES[:100])
    assert latest(flink) == older.as_uri()
    assert f"{newest.as_uri()} is damaged, and passed over" in caplog.text
    (older / "_metadata").write_bytes(b"")
    with pytest.raises(GuaranteeError, match=r"\(2 are damaged\)"):
        latest(flink)


def test_metadata_of_other_versions_of_flink_are_left_to_it(
    flink: FakeFlink, tmp_path: Path
) -> None:
    folder = complete(tmp_path / "chk-1", at=1)
    (folder / "_metadata").write_bytes(MAGIC + (3).to_bytes(4, "big") + bytes(10))
    assert restored(flink, str(folder)) == folder.as_uri()


def test_an_unfinished_checkpoint_is_refused(flink: FakeFlink, tmp_path: Path) -> None:
    (tmp_path / "chk-1").mkdir()
    with pytest.raises(GuaranteeError) as refused:
        restored(flink, str(tmp_path / "chk-1"))
    assert f"--restore={tmp_path / 'chk-1'}" in refused.value.message
    assert "--restore=latest" in refused.value.message


@pytest.mark.parametrize("folder", [f"{JID}/chk-7", f"savepoint-{JID[:3]}-0a1b", f"{JID}/chk-7/"])
def test_the_job_that_has_made_a_checkpoint_is_known_by_its_folder(
    flink: FakeFlink, folder: str
) -> None:
    """So that one from before a hand-over, or of another destination, is refused before the tables
    are claimed, and with them a job that is well.
    """
    assert made_by(flink, f"s3://bucket/{folder}") == JOB_ID
    flink.name = "a job of others"
    assert made_by(flink, f"s3://bucket/{folder}") == "a job of others"


@pytest.mark.parametrize(
    "folder", ["c6e2/chk-7", "savepoint-c6e2-0a1b", "savepoint--x", "chk-7", "b/copy"]
)
def test_a_job_that_flink_has_forgotten_is_not_known(flink: FakeFlink, folder: str) -> None:
    assert made_by(flink, f"s3://{folder}") is None
