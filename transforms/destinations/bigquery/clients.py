"""The clients of one process: one set for each BigQuerySettings.

They are kept across bundles, and closed when the process ends.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import google.auth
import grpc
from google.api_core.client_options import ClientOptions
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
    BigQueryWriteGrpcTransport,
)

from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.model.errors import GuaranteeError

_SCOPES: Final = (
    "https://www.googleapis.com/auth/bigquery",
    "https://www.googleapis.com/auth/cloud-platform",
)
# Channels with equal options share a connection, unless an option forbids it.
_APPEND_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
_OPEN: Final[dict[BigQuerySettings, Clients]] = {}
_GUARD: Final = threading.Lock()


@dataclass(frozen=True)
class Clients:
    """Clients of one BigQuery.

    rest: tables, views, queries. write: streams. new_channel: for appends, so that no other call
    waits behind them.
    """

    rest: bigquery.Client
    write: BigQueryWriteClient
    new_channel: Callable[[], grpc.Channel]

    def close(self) -> None:
        self.rest.close()
        self.write.transport.close()


def clients_of(settings: BigQuerySettings) -> Clients:
    """The process's clients. Raises GuaranteeError when there are no credentials."""
    with _GUARD:
        if settings not in _OPEN:
            _OPEN[settings] = _connect(settings)
        return _OPEN[settings]


@atexit.register
def close_clients() -> None:
    """Closes all clients of the process; the next use makes new ones."""
    with _GUARD:
        for clients in _OPEN.values():
            clients.close()
        _OPEN.clear()


def _connect(settings: BigQuerySettings) -> Clients:
    credentials = AnonymousCredentials() if settings.is_local else _credentials(settings)
    rest = bigquery.Client(
        project=settings.project,
        credentials=credentials,
        location=settings.location,
        client_options=ClientOptions(api_endpoint=settings.api_endpoint),
    )
    if settings.is_local:

        def new_channel() -> grpc.Channel:
            return grpc.insecure_channel(settings.storage_endpoint, options=_APPEND_CHANNEL)

        write = BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=new_channel()))
    else:
        write = BigQueryWriteClient(
            credentials=credentials,
            client_options=ClientOptions(api_endpoint=settings.storage_endpoint),
        )
        host = settings.storage_endpoint or BigQueryWriteClient.DEFAULT_ENDPOINT

        def new_channel() -> grpc.Channel:
            return BigQueryWriteGrpcTransport.create_channel(
                host, credentials=credentials, scopes=_SCOPES, options=_APPEND_CHANNEL
            )

    return Clients(rest, write, new_channel)


def _credentials(settings: BigQuerySettings) -> Credentials:
    """Application default credentials, with their quota project.

    They act as another account where --impersonate_service_account names one. Raises GuaranteeError
    when there are none.
    """
    try:
        found: Any
        found, _ = google.auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        raise GuaranteeError(
            "BigQuery: no credentials were found. Run `gcloud auth application-default login`, or"
            " set GOOGLE_APPLICATION_CREDENTIALS to a key"
            " file (https://cloud.google.com/docs/authentication/application-default-credentials)."
            " Nothing was read."
        ) from error
    if settings.impersonate is None:
        credentials: Credentials = found
        return credentials
    *delegates, target = [account.strip() for account in settings.impersonate.split(",")]
    impersonated: Credentials = impersonated_credentials.Credentials(
        found, target, list(_SCOPES), delegates=delegates
    )
    return impersonated
