"""--restore: the checkpoint that a job begins with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.streaming.restore import LATEST, checkpoint_to_restore, made_by
from tests.support.fake_flink import JID, JOB_ID, FakeFlink
from transforms.model.errors import GuaranteeError


@pytest.fixture
def flink(tmp_path: Path) -> FakeFlink:
    double = FakeFlink()
    double.keys = {
        "state.checkpoints.dir": (tmp_path / "checkpoints").as_uri(),
        "state.savepoints.dir": (tmp_path / "save points").as_uri(),
    }
    return double


def complete(folder: Path, at: int) -> Path:
    """A complete checkpoint. at: seconds since 1970 when its last file was written."""
    folder.mkdir(parents=True)
    (folder / "_metadata").touch()
    os.utime(folder / "_metadata", (at, at))
    return folder


def test_the_newest_complete_one_counts(flink: FakeFlink, tmp_path: Path) -> None:
    of_job = tmp_path / "checkpoints" / "b5d1"
    complete(of_job / "chk-9", at=10)
    newest = complete(of_job / "chk-10", at=20)
    (of_job / "chk-11").mkdir()
    assert checkpoint_to_restore(flink, LATEST, [JOB_ID]) == newest.as_uri()
    savepoint = complete(tmp_path / "save points" / "savepoint-b5d1-1", at=30)
    (tmp_path / "save points" / "savepoint-b5d1-2").mkdir()
    assert checkpoint_to_restore(flink, LATEST, [JOB_ID]) == savepoint.as_uri()


def test_the_newest_one_of_another_destination_is_passed_over(
    flink: FakeFlink, tmp_path: Path
) -> None:
    older = complete(tmp_path / "checkpoints" / "c6e2" / "chk-1", at=10)
    complete(tmp_path / "checkpoints" / JID / "chk-9", at=20)
    # Flink knows whose the newer one is, and has forgotten the job of the older one.
    assert checkpoint_to_restore(flink, LATEST, ["job of ours"]) == older.as_uri()
    assert checkpoint_to_restore(flink, LATEST, [JOB_ID]).endswith("chk-9")


def test_without_a_complete_one_the_message_says_what_to_do(
    flink: FakeFlink, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints" / "b5d1" / "chk-1").mkdir(parents=True)
    with pytest.raises(GuaranteeError) as refused:
        checkpoint_to_restore(flink, LATEST, [JOB_ID])
    assert flink.keys["state.checkpoints.dir"] in refused.value.message
    assert "--from_tables" in refused.value.message


def test_latest_on_another_file_system_is_not_seen_from_here(flink: FakeFlink) -> None:
    flink.keys = {"state.checkpoints.dir": "s3://bucket/checkpoints"}
    with pytest.raises(GuaranteeError, match=r"s3://bucket/checkpoints.* Give the path"):
        checkpoint_to_restore(flink, LATEST, [JOB_ID])


def test_a_path_becomes_an_address(flink: FakeFlink, tmp_path: Path) -> None:
    folder = complete(tmp_path / "chk-1", at=1)
    assert checkpoint_to_restore(flink, str(folder), [JOB_ID]) == folder.as_uri()
    assert checkpoint_to_restore(flink, folder.as_uri(), [JOB_ID]) == folder.as_uri()


def test_another_file_system_is_left_to_flink(flink: FakeFlink) -> None:
    assert checkpoint_to_restore(flink, "s3://bucket/chk-1", [JOB_ID]) == "s3://bucket/chk-1"
    assert flink.calls == []


def test_an_unfinished_checkpoint_is_refused(flink: FakeFlink, tmp_path: Path) -> None:
    (tmp_path / "chk-1").mkdir()
    with pytest.raises(GuaranteeError) as refused:
        checkpoint_to_restore(flink, str(tmp_path / "chk-1"), [JOB_ID])
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
    assert made_by(flink, f"s3://bucket/{folder}") is None


@pytest.mark.parametrize("folder", ["c6e2/chk-7", "savepoint-c6e2-0a1b", "savepoint--x", "chk-7"])
def test_a_job_that_flink_has_forgotten_is_not_known(flink: FakeFlink, folder: str) -> None:
    assert made_by(flink, f"file:///{folder}") is None
