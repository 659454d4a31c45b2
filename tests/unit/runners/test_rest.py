"""What listens at --flink_master may be no Flink."""

from __future__ import annotations

import socket
import threading

import pytest

from runners.flink.rest import FlinkRest, FlinkUnreachable

HTTP_2 = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x04\x00\x10\x00\x00"
"""What a gRPC server, such as Beam's job server, says first."""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HTTP_2, "is not Flink's REST interface"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "is not Flink's REST interface"),
        (b"", "the connection was closed"),
    ],
    ids=["gRPC", "a web page", "nothing"],
)
def test_a_server_that_is_not_flink_is_called_so(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(FlinkUnreachable) as refused:
            FlinkRest(f"127.0.0.1:{server.getsockname()[1]}").overview()
        thread.join()
    assert said in str(refused.value)
    assert str(refused.value).isprintable()
