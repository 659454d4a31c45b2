"""The settings of a consumer that is given its partitions: ours, the user's, and what must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from transforms.read.broker_errors import BrokerErrors

_FIXED: Final[dict[str, str | int | bool]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Lost offsets are an error; `earliest` would skip them silently.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "topic.metadata.propagation.max.ms": 5000,
}
CONNECTION_DEFAULTS: Final[dict[str, str | int | bool]] = {
    # A client connects to one broker at a time, half of this apart. Its first two connections are
    # to the server that was named, and to the broker that this one names, which may be the same.
    "reconnect.backoff.ms": 20,
}
"""Of every client that reads, or asks; the user's settings come after them."""

_DEFAULTS: Final[dict[str, str | int | bool]] = {
    **CONNECTION_DEFAULTS,
    # As much as a poll takes; the default of 64 MB is memory for nothing. Of a range: see
    # partition_reader.py.
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 16_384,
    # A full queue pauses the fetcher, for a second with the default.
    "fetch.queue.backoff.ms": 5,
    # A fetch that waits at the end of one partition delays the first fetch of the next one, by
    # 0.25 s with the default of 500.
    "fetch.wait.max.ms": 10,
}


def consumer_settings(consumer_config: Mapping[str, str], errors: BrokerErrors) -> dict[str, Any]:
    """The settings of a consumer that is given its partitions. errors: learns what goes wrong.

    The user's settings come after our defaults, and before what the guarantee needs.
    """
    log = errors.log.settings(consumer_config)
    return {**_DEFAULTS, **log, **_FIXED, "error_cb": errors.remember}
