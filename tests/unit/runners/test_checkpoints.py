"""Which checkpoint a job is restored from."""

import os
from pathlib import Path

from runners.flink.checkpoints import complete_checkpoints


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
