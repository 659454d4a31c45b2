"""Which checkpoint a job is restored from."""

import os
from pathlib import Path

from runners.flink.checkpoints import complete_checkpoints
from runners.flink.snapshots import complete_snapshots


def test_the_newest_that_is_complete_comes_first(tmp_path: Path) -> None:
    assert complete_checkpoints(tmp_path) == []
    for moment, name in enumerate(["job-b/chk-9", "job-a/chk-1", "job-a/chk-2"]):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "_metadata").write_bytes(b"x")
        os.utime(folder / "_metadata", ns=(moment, moment))
    (tmp_path / "job-a" / "chk-3").mkdir()  # Flink writes _metadata last
    (tmp_path / "job-a" / "shared").mkdir()
    assert complete_checkpoints(tmp_path) == [
        tmp_path / "job-a" / "chk-2",
        tmp_path / "job-a" / "chk-1",
        tmp_path / "job-b" / "chk-9",
    ]


def test_savepoints_count_beside_checkpoints(tmp_path: Path) -> None:
    folders = [tmp_path / "checkpoints", tmp_path / "savepoints", tmp_path / "not there"]
    names = ["checkpoints/job-a/chk-1", "savepoints/savepoint-b-1", "checkpoints/job-a/chk-2"]
    for moment, name in enumerate(names):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "_metadata").write_bytes(b"x")
        os.utime(tmp_path / name / "_metadata", ns=(moment, moment))
    (folders[1] / "savepoint-b-2").mkdir()
    assert complete_snapshots(folder.as_uri() for folder in folders) == [
        (tmp_path / name).as_uri() for name in reversed(names)
    ]
    assert len(complete_snapshots(map(str, folders))) == 3
