"""The end of a connection as an error of gRPC, so that it is handled like any other one."""

from __future__ import annotations

from collections.abc import Callable

import grpc


class ConnectionEnded(grpc.RpcError, grpc.Call):
    """The service ended the connection without an error, with appends unanswered."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the service ended the connection"

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def initial_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False
