"""Whether Beam's job server answers."""

from __future__ import annotations

import socket

import pytest

from runners.job_server import JobServerAway, check_job_server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_a_port_where_nothing_listens_is_no_job_server() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(JobServerAway, match="no job server of Beam"):
            check_job_server(f"127.0.0.1:{port_of(reserved)}", seconds=0.5)


def test_a_server_that_does_not_answer_is_none_either() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(JobServerAway, match="no job server of Beam"),
    ):
        check_job_server(f"127.0.0.1:{port_of(silent)}", seconds=0.5)
