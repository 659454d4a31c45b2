"""HTTP around the REST methods: reading requests, faults, answers as JSON. On 127.0.0.1 only."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tests.bigquery_stand_in.errors import RestFailure
from tests.bigquery_stand_in.faults import Call, FaultPlan, Kind, Rule
from tests.bigquery_stand_in.limits import MAX_REQUEST_BYTES
from tests.bigquery_stand_in.rest.api import Request, RestApi

_PREFIX: Final = "/bigquery/v2"


class _CutConnection(Exception):
    """The client sees the connection break instead of an answer."""


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: RestApi, faults: FaultPlan, stopping: threading.Event) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self.faults = faults
        self.stopping = stopping

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = (
        -1
    )  # one packet for headers and body: else each answer waits for a delayed acknowledgement

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent: tests look at `calls`."""

    def _serve(self) -> None:
        try:
            status, resource = self._answer()
        except RestFailure as failure:
            status, resource = failure.status, failure.resource()
        except _CutConnection:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        # A bug of the stand-in must reach the test as an answer: its client would hang.
        except Exception as error:
            status, resource = (
                501,
                RestFailure(
                    501, "notImplemented", f"the stand-in failed: {type(error).__name__}: {error}"
                ).resource(),
            )
        body = json.dumps(resource).encode() if resource else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[int, dict[str, Any]]:
        request = self._request()
        name, do = self.server.api.route(request)
        call, rules = self.server.faults.arrive(name, request)
        self._before(call, rules)
        failure = None
        try:
            resource = do()
        except RestFailure as refused:
            failure = refused
        self._after(call, rules)
        if failure is not None:
            raise failure
        return 204 if not resource else 200, resource

    def _request(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length) if length else b""
        if length > MAX_REQUEST_BYTES:
            raise RestFailure(
                413,
                "requestTooLarge",
                f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes.",
            )
        url = urlsplit(self.path)
        path = url.path.removeprefix(_PREFIX)
        return Request(
            self.command, path, dict(parse_qsl(url.query)), json.loads(content) if content else {}
        )

    def _before(self, call: Call, rules: list[Rule]) -> None:
        for rule in rules:
            if rule.kind is Kind.DELAY:
                self.server.stopping.wait(rule.seconds)
            elif rule.kind is Kind.HOOK:
                rule.function(call)
            elif rule.kind is Kind.FAIL:
                raise _injected(rule)
            elif rule.kind is Kind.CUT:
                raise _CutConnection

    def _after(self, call: Call, rules: list[Rule]) -> None:
        for rule in rules:
            if rule.kind is Kind.HOOK_AFTER:
                rule.function(call)
            elif rule.kind is Kind.FAIL_AFTER:
                raise _injected(rule)
            elif rule.kind is Kind.LOSE_ANSWER:
                raise _CutConnection


def _injected(rule: Rule) -> RestFailure:
    return RestFailure(rule.code if isinstance(rule.code, int) else 503, rule.reason, rule.message)
