"""librdkafka's own log of one client: some reasons of a broken connection are only there.

A plaintext client that a TLS listener disconnects is one: `error_cb` only hears that all brokers
are down (https://github.com/confluentinc/librdkafka/wiki/Logging).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

_INFO: Final = "6"
"""The syslog level at which librdkafka logs every disconnect."""

_LOG = logging.getLogger(__name__)


class ClientLog(logging.Logger):
    """A logger of its own, outside of the hierarchy. Lines arrive when the client polls.

    failed: gets the text of each broken connection. led_elsewhere: that of each broker of another
    cluster than the broker before. Nothing else is shown, unless the user asks for it in the
    client's configuration.
    """

    def __init__(self, failed: Callable[[str], None], led_elsewhere: Callable[[str], None]) -> None:
        super().__init__("librdkafka")
        self.addHandler(_Handler(self))
        self.failed = failed
        self.led_elsewhere = led_elsewhere
        self.is_shown = False

    def settings(self, consumer_config: Mapping[str, Any]) -> dict[str, Any]:
        """The client's settings with this log. consumer_config: the user's own settings."""
        self.is_shown = "debug" in consumer_config or "log_level" in consumer_config
        return {"log_level": _INFO, **consumer_config, "logger": self}


class _Handler(logging.Handler):
    def __init__(self, log: ClientLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind, _client, text = record.args  # type: ignore[misc]
        if kind == "FAIL":
            self._log.failed(str(text).partition("]: ")[2])
        if kind == "CLUSTERID":
            self._log.led_elsewhere(str(text).partition("]: ")[2])
        if self._log.is_shown:
            _LOG.warning("%s", record.getMessage())
