"""Errors that librdkafka reports beside the records: most are temporary, some are final."""

from __future__ import annotations

import logging
from typing import Final

from confluent_kafka import KafkaError

from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.read.client_log import ClientLog

_LOG = logging.getLogger(__name__)

FIRST_LINE_SECONDS: Final = 5.0

UNKNOWN_TOPIC: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
_RIGHTS: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "READ and DESCRIBE on the topic (kafka-acls --add"
    " --operation Read --operation Describe --topic ...)",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "READ on the consumer group (kafka-acls --add"
    " --operation Read --group ...)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "DESCRIBE on the cluster (kafka-acls --add --operation"
    " Describe --cluster)",
}
_CONSEQUENCES: Final = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)
"""What follows from a broken connection, and says nothing of its reason."""


class BrokerErrors:
    """The errors of one client. Pass `remember` to it as `error_cb`, and `log` as `logger`.

    An unreachable broker causes up to 20 errors a second (`_TRANSPORT`, `_ALL_BROKERS_DOWN`), none
    of them final. They are not logged one by one; `WaitLog` logs the waiting instead.
    """

    def __init__(self, bootstrap_servers: str, *, waits_for_topics: bool = False) -> None:
        """waits_for_topics: a topic that the broker does not know is no final error."""
        self._servers = bootstrap_servers
        self._final_codes = {KafkaError._AUTHENTICATION, *_RIGHTS}
        if not waits_for_topics:
            self._final_codes |= {*UNKNOWN_TOPIC}
        self._final: KafkaError | None = None
        self.has_heard = False
        """Whether the client has ever reported anything, also what has passed since."""
        self.led_elsewhere: str | None = None
        """That its brokers are of more than one cluster, in librdkafka's words; None: it has never
        said so.
        """
        self.log = ClientLog(self._connection_failed, self._led_elsewhere)
        self.reason: str | None = None
        """Why there is no connection, in librdkafka's words; None while it has not said so."""

    def remember(self, error: KafkaError) -> None:
        """Keeps the last reason, and the last error that is final.

        A consumer that is given its partitions reads without any right on its group, which
        librdkafka looks up all the same.
        """
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return
        self.answered(error)
        if error.code() not in _CONSEQUENCES:
            self._connection_failed(error.str())

    def answered(self, error: KafkaError) -> None:
        """The error of one request: kept if it is final. Of a connection it knows no reason."""
        self.has_heard = True
        if error.fatal() or error.code() in self._final_codes:
            self._final = error

    def works(self) -> None:
        """A request was answered well: what was refused before has passed."""
        self._final = None

    def _connection_failed(self, text: str) -> None:
        self.has_heard = True
        # A plaintext listener drops TLS clients within the handshake or, by chance, around it: then
        # librdkafka only says that it was disconnected.
        is_vague = "Disconnected" in text and "handshake failed" not in text
        if is_vague and self.reason is not None and "handshake failed" in self.reason:
            return
        self.reason = text

    def _led_elsewhere(self, text: str) -> None:
        self.has_heard = True
        self.led_elsewhere = text

    def raise_if_final(self) -> None:
        """Raises GuaranteeError for an error that waiting cannot fix.

        The message names what the broker refused. TryAgainLater where only the client must be
        started again.
        """
        if self._final is None:
            return
        code, text = self._final.code(), self._final.str()
        if code == KafkaError._AUTHENTICATION:
            raise GuaranteeError(
                f"--bootstrap_servers={self._servers} refuses the credentials ({text}). Set the"
                " right sasl.username and sasl.password in the --consumer_config file."
            )
        if code in _RIGHTS:
            raise denied(self._servers, code, text)
        if code in UNKNOWN_TOPIC:
            raise GuaranteeError(
                f"Kafka at {self._servers} does not know a topic or partition any more ({text}). If"
                " it was deleted, what was not read of it is lost; start again with the topics that"
                " exist."
            )
        raise TryAgainLater(
            f"the Kafka client cannot go on ({text}). Nothing of this run is visible; start again."
        )


def denied(servers: str, code: int, text: str) -> GuaranteeError:
    """The error of a missing right, which says who has to be granted what."""
    return GuaranteeError(
        f"Kafka at {servers} denies access ({text}). Grant the user of --consumer_config"
        f" {_RIGHTS[code]}."
    )


def is_denied(code: int) -> bool:
    """Whether the error code says that a right is missing."""
    return code in _RIGHTS


class WaitLog:
    """Logs one line after 5, 10, 20, 40... seconds of waiting for the same thing.

    Not earlier: a broker under load may take a second or two.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._waited = 0.0
        self._next_line = FIRST_LINE_SECONDS

    def waited(self, seconds: float, reason: str | None) -> float:
        """Adds to the seconds waited, and returns their sum. reason: of the waiting, if known."""
        self._waited += seconds
        if self._waited >= self._next_line:
            why = f" ({reason})" if reason else ""
            _LOG.warning("%s: no answer for %.0f s, still waiting%s", self._what, self._waited, why)
            self._next_line = 2 * self._waited
        return self._waited

    def reset(self) -> None:
        """The waiting is over; the next one starts at 0 seconds."""
        self._waited, self._next_line = 0.0, FIRST_LINE_SECONDS
