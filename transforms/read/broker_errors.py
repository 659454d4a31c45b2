"""Errors that librdkafka reports beside the records: most are temporary, some are final."""

from __future__ import annotations

import logging
from typing import Final

from confluent_kafka import KafkaError

from transforms.model.errors import GuaranteeError

_LOG = logging.getLogger(__name__)

FIRST_LINE_SECONDS: Final = 5.0

_UNKNOWN: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
_DENIED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


class BrokerErrors:
    """The errors of one client. Pass `remember` to it as `error_cb`.

    An unreachable broker causes up to 20 errors a second (`_TRANSPORT`, `_ALL_BROKERS_DOWN`), none
    of them final. They are not logged one by one; `WaitLog` logs the waiting instead.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._final: KafkaError | None = None
        self.last: KafkaError | None = None

    def remember(self, error: KafkaError) -> None:
        """Keeps the last error, and the last one that is final.

        A consumer that is given its partitions reads without any right on its group, which
        librdkafka looks up all the same.
        """
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return
        self.last = error
        if error.fatal() or error.code() in (KafkaError._AUTHENTICATION, *_UNKNOWN, *_DENIED):
            self._final = error

    def raise_if_final(self) -> None:
        """Raises GuaranteeError for an error that waiting cannot fix.

        The message names what the broker refused.
        """
        if self._final is None:
            return
        code, text = self._final.code(), self._final.str()
        if code == KafkaError._AUTHENTICATION:
            raise GuaranteeError(
                f"--bootstrap_servers={self._servers} refuses the credentials ({text}). Set the"
                " right sasl.username and sasl.password in the --consumer_config file. Nothing was"
                " read."
            )
        if code in _DENIED:
            raise GuaranteeError(
                f"Kafka at {self._servers} denies access ({text}). Give this user the right to read"
                " the topic."
            )
        if code in _UNKNOWN:
            raise GuaranteeError(
                f"Kafka at {self._servers} does not know a topic or partition any more ({text}). If"
                " it was deleted, what was not read of it is lost; start again with the topics that"
                " exist."
            )
        raise GuaranteeError(
            f"the Kafka client cannot go on ({text}). Nothing of this run is visible; start again."
        )


class WaitLog:
    """Logs one line after 5, 10, 20, 40... seconds of waiting for the same thing.

    Not earlier: a broker under load may take a second or two.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._waited = 0.0
        self._next_line = FIRST_LINE_SECONDS

    def waited(self, seconds: float, last_error: KafkaError | None) -> float:
        """Adds to the seconds waited, and returns their sum."""
        self._waited += seconds
        if self._waited >= self._next_line:
            reason = f" ({last_error.str()})" if last_error else ""
            _LOG.warning(
                "%s: no answer for %.0f s, still waiting%s", self._what, self._waited, reason
            )
            self._next_line = 2 * self._waited
        return self._waited

    def reset(self) -> None:
        """The waiting is over; the next one starts at 0 seconds."""
        self._waited, self._next_line = 0.0, FIRST_LINE_SECONDS
