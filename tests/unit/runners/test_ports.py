"""Ports of a cluster on this machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from runners.ports import ports_of


def test_the_former_ports_come_again_at_their_places(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports_of(file, 4)
    assert len(set(first)) == 4
    assert ports_of(file, 4) == first
    more = ports_of(file, 6)
    assert more[:4] == first
    assert ports_of(file, 4) == first
    assert ports_of(file, 6) == more


def test_a_port_that_another_process_has_taken_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports_of(file, 3)
    with socket.socket() as taken:
        taken.bind(("", first[1]))
        taken.listen()
        again = ports_of(file, 3)
    assert (again[0], again[2]) == (first[0], first[2])
    assert again[1] not in first
    assert json.loads(file.read_text()) == again
