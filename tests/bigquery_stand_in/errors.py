"""What the service answers when it refuses: one class per protocol, and how each travels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2
from google.rpc import status_pb2

StorageErrorCode = types.StorageError.StorageErrorCode

_STORAGE_ERROR = types.StorageError.pb()


class StorageFailure(Exception):
    """A refused call of the Write API: a gRPC code, and a StorageError in the details where the
    service has one for the case.

    row_errors: (index, message) of the rows that made an append fail. ends_connection: the service
    cannot answer in-band, for instance because the connection has no stream yet.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        storage_code: StorageErrorCode | None = None,
        entity: str = "",
        row_errors: Sequence[tuple[int, str]] = (),
        ends_connection: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.storage_code = storage_code
        self.entity = entity
        self.row_errors = row_errors
        self.ends_connection = ends_connection

    def status(self, with_details: bool = True) -> Any:
        """The google.rpc.Status of https://cloud.google.com/apis/design/errors."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if with_details and self.storage_code is not None:
            packed = any_pb2.Any()
            packed.Pack(self.storage_error())
            status.details.append(packed)
        return status

    def storage_error(self) -> Any:
        return _STORAGE_ERROR(
            code=int(self.storage_code or 0), entity=self.entity, error_message=self.message
        )


class RestFailure(Exception):
    """A refused REST call: HTTP status and reason as
    https://cloud.google.com/bigquery/docs/error-messages lists them.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def error(self) -> dict[str, str]:
        return {"reason": self.reason, "message": self.message}

    def resource(self) -> dict[str, Any]:
        return {
            "error": {
                "code": self.status,
                "message": self.message,
                "errors": [{**self.error(), "domain": "global"}],
            }
        }


def invalid_query(message: str) -> RestFailure:
    return RestFailure(400, "invalidQuery", message)


def invalid(message: str) -> RestFailure:
    return RestFailure(400, "invalid", message)


def not_found(what: str) -> RestFailure:
    return RestFailure(404, "notFound", f"Not found: {what}")


def duplicate(what: str) -> RestFailure:
    return RestFailure(409, "duplicate", f"Already Exists: {what}")
