"""The configuration of a Flink cluster on this machine."""

from __future__ import annotations

from pathlib import Path

from runners.flink.configuration import ClusterPorts, ClusterSettings, flink_configuration

PORTS = ClusterPorts(1, 2, 3, 4, ())


def test_checkpoints_hold_what_has_changed_unless_all_of_it_is_wanted() -> None:
    key = "state.backend.incremental"
    assert flink_configuration(ClusterSettings(), PORTS, Path("/flink"))[key] == "true"
    every_time = ClusterSettings(incremental=False)
    assert flink_configuration(every_time, PORTS, Path("/flink"))[key] == "false"
