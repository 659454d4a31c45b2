"""A broker that cannot be reached: the message has librdkafka's own reason, and what to do."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline import kafka_admin
from pipeline.kafka_admin import PATIENCE_SECONDS, KafkaAdmin
from pipeline.run import command as run_module
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.read.broker_errors import BrokerErrors
from transforms.read.unreachable import NAMED_REASON_SECONDS, unreachable

REFUSING = "127.0.0.1:1"


@contextmanager
def listener(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A port on which each connection is handed to `answer`, then closed."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def asked(
    monkeypatch: pytest.MonkeyPatch, servers: str, tick: float = 5.0, **settings: str
) -> GuaranteeError:
    """The error of the first question, with a clock that goes on by `tick` seconds each time."""
    monkeypatch.setattr(kafka_admin, "_REQUEST_SECONDS", 0.5)
    ticks = itertools.count(0.0, tick)
    config = {"bootstrap.servers": servers, "group.id": "g", **settings}
    with (
        KafkaAdmin(config, clock=lambda: next(ticks)) as admin,
        pytest.raises(GuaranteeError) as found,
    ):
        admin.cluster_id()
    return found.value


def test_a_name_that_cannot_be_resolved(monkeypatch) -> None:
    error = asked(monkeypatch, "no-such-host.invalid:9092")
    assert isinstance(error, TryAgainLater)
    assert "Failed to resolve 'no-such-host.invalid:9092'" in error.message
    assert f"within {NAMED_REASON_SECONDS:.0f} s" in error.message
    assert "advertised.listeners" in error.message


def test_a_port_that_is_closed(monkeypatch) -> None:
    error = asked(monkeypatch, REFUSING)
    assert isinstance(error, TryAgainLater)
    assert "Connection refused" in error.message and "host and port" in error.message


def test_tls_against_a_plaintext_listener(monkeypatch) -> None:
    with listener(lambda connection: connection.recv(10)) as servers:
        error = asked(monkeypatch, servers, **{"security.protocol": "SSL"})
    assert "SSL handshake failed" in error.message
    assert "security.protocol to PLAINTEXT" in error.message


def tls_context(tmp_path: Path) -> ssl.SSLContext:
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2"
        " -subj /CN=localhost",
        shell=True,
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    return context


def handshake(context: ssl.SSLContext) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True).recv(10)
        except OSError:  # what this listener thinks of the client does not matter
            return

    return answer


def test_plaintext_against_a_tls_listener(monkeypatch, tmp_path: Path) -> None:
    with listener(handshake(tls_context(tmp_path))) as servers:
        error = asked(monkeypatch, servers)
    assert "Disconnected" in error.message
    assert "set security.protocol to SSL or SASL_SSL" in error.message


def test_a_certificate_that_nobody_known_has_signed_needs_a_person(
    monkeypatch, tmp_path: Path
) -> None:
    with listener(handshake(tls_context(tmp_path))) as servers:
        error = asked(monkeypatch, servers, **{"security.protocol": "SSL"})
    assert "certificate verify failed" in error.message
    assert "ssl.ca.location" in error.message
    assert not isinstance(error, TryAgainLater)


def failing(code: int, tries: list[int]) -> Callable[[float], Any]:
    def request(_seconds: float) -> Any:
        tries.append(1)
        raise KafkaException(KafkaError(code))

    return request


def test_what_counts_is_time_not_tries() -> None:
    """A broker that drops connections fails every request in a moment."""
    ticks = itertools.count(0.0, 5.0)
    tries: list[int] = []
    with (
        KafkaAdmin(
            {"bootstrap.servers": REFUSING, "group.id": "g"}, clock=lambda: next(ticks)
        ) as admin,
        pytest.raises(TryAgainLater, match="no answer within 15 s"),
    ):
        admin._ask("the cluster", failing(KafkaError._TRANSPORT, tries))
    assert len(tries) == 3


def test_silence_is_waited_for_longer(monkeypatch) -> None:
    """No reason is known, and the broker may be busy."""
    ticks = itertools.count(0.0, 20.0)
    tries: list[int] = []
    with (
        listener(lambda connection: connection.recv(1 << 20)) as servers,
        KafkaAdmin(
            {"bootstrap.servers": servers, "group.id": "g"}, clock=lambda: next(ticks)
        ) as admin,
        pytest.raises(TryAgainLater, match=f"no answer within {PATIENCE_SECONDS:.0f} s"),
    ):
        admin._ask("the cluster", failing(KafkaError._TIMED_OUT, tries))
    assert len(tries) == 3


def test_the_lines_of_a_wait_name_the_reason(caplog) -> None:
    ticks = itertools.count(0.0, 5.0)
    with (
        KafkaAdmin(
            {"bootstrap.servers": REFUSING, "group.id": "g"}, clock=lambda: next(ticks)
        ) as admin,
        pytest.raises(TryAgainLater),
    ):
        admin._ask("the cluster", failing(KafkaError._TRANSPORT, []))
    assert "no answer for 5 s, still waiting" in caplog.messages[0]
    assert "still waiting (127.0.0.1:1" in caplog.messages[-1]
    assert "Connection refused" in caplog.messages[-1]


@pytest.mark.parametrize(
    "reason,words",
    [
        ("b:1/bootstrap: Failed to resolve 'b:1': Temporary failure in name resolution", "DNS"),
        ("b:1: Connect to ipv4#1.2.3.4:1 failed: No route to host", "correct the address"),
        (
            "b:1: Disconnected while requesting ApiVersion: might be caused by incorrect"
            " security.protocol configuration (connecting to a SSL listener?)",
            "SSL or SASL_SSL",
        ),
        (None, "Start the broker"),
    ],
)
def test_each_reason_has_its_advice(reason: str | None, words: str) -> None:
    error = unreachable("b:1", 15.0, reason)
    assert words in error.message and (reason or "nothing is answered") in error.message


def test_a_leader_that_changes_is_waited_for() -> None:
    tries: list[int] = []
    with KafkaAdmin({"bootstrap.servers": REFUSING, "group.id": "g"}) as admin:
        fails = failing(KafkaError.NOT_LEADER_FOR_PARTITION, tries)
        assert admin._ask("topic p", lambda _s: "there" if tries else fails(_s)) == "there"


# What a broker says of a topic in place of its partitions.


@pytest.mark.parametrize(
    "code,words,later",
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Grant .* READ and DESCRIBE on the topic", False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "has no such topic .* Create it", False),
        (KafkaError.TOPIC_EXCEPTION, "has no such topic", False),
        (KafkaError.LEADER_NOT_AVAILABLE, "cannot serve it now", True),
    ],
)
def test_a_topic_that_may_not_be_read_is_not_one_that_is_missing(
    monkeypatch, code: int, words: str, later: bool
) -> None:
    class Metadata:
        error = KafkaError(code)

    with KafkaAdmin({"bootstrap.servers": REFUSING, "group.id": "g"}) as admin:
        monkeypatch.setattr(admin, "_ask", lambda _what, _request: Metadata)
        with pytest.raises(GuaranteeError, match=words) as found:
            admin.topic_state("payments", 0)
    assert isinstance(found.value, TryAgainLater) is later
    assert "--topic=payments" in found.value.message
    assert ("Create it" in found.value.message) is (not later and "no such" in words)


@pytest.mark.parametrize(
    "code,words",
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "READ and DESCRIBE on the topic"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "READ on the consumer group"),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, "DESCRIBE on the cluster"),
    ],
)
def test_a_denied_request_says_which_right_is_missing(code: int, words: str) -> None:
    with (
        KafkaAdmin({"bootstrap.servers": REFUSING, "group.id": "g"}) as admin,
        pytest.raises(GuaranteeError, match=words),
    ):
        admin._ask("topic payments", failing(code, []))


def test_a_bare_disconnect_does_not_hide_a_failed_handshake() -> None:
    errors = BrokerErrors("b:1")
    errors.log.failed("SSL handshake failed: Disconnected: connecting to a PLAINTEXT listener?")
    errors.log.failed("Disconnected: connection closed by peer")
    assert str(errors.reason).startswith("SSL handshake failed")
    errors.log.failed("Connect to ipv4#127.0.0.1:1 failed: Connection refused")
    assert "Connection refused" in str(errors.reason)
    errors.log.failed("Disconnected (after 0ms in state APIVERSION_QUERY)")
    assert "APIVERSION_QUERY" in str(errors.reason)


@pytest.mark.parametrize("question", ["cluster_id", "topic_id"])
def test_a_broker_that_is_away_after_reading_does_not_claim_that_nothing_was_read(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("c"))
    original, away = run_module.read_and_write, unreachable("b:1", 60.0, None)

    def read_then_away(*arguments: Any) -> None:
        original(*arguments)
        monkeypatch.setattr(kafka, question, lambda *_: (_ for _ in ()).throw(away))

    with monkeypatch.context() as patch, pytest.raises(TryAgainLater) as found:
        patch.setattr(run_module, "read_and_write", read_then_away)
        run(config(path))
    message = found.value.message
    assert message.startswith("--bootstrap_servers=b:1: no answer within 60 s")
    assert "Nothing was read" not in message
    assert message.endswith(
        " 3 records were read in this transaction, and nothing of it is visible."
        " The next run reads them again."
    )


def test_an_error_of_a_kept_connection_that_passed_long_ago_ends_nothing() -> None:
    """A broker refused once, in a rolling restart say; others answered, and so did this one."""
    with KafkaAdmin({"bootstrap.servers": REFUSING, "group.id": "g"}) as admin:
        admin._errors.remember(KafkaError(KafkaError._AUTHENTICATION))
        assert admin._ask("the cluster", lambda _: "tick after tick") == "tick after tick"
        answers = [KafkaException(KafkaError(KafkaError._TIMED_OUT)), "again"]

        def passing(_: float) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert admin._ask("the cluster", passing) == "again"
