"""`--consumer_config`: librdkafka settings from a properties file.

Settings that would break the guarantee are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, KafkaException

from transforms.model.errors import UsageError

DEFAULT_GROUP: Final = "payment-pipeline"

_OWNED: Final = {
    "auto.offset.reset": "deleted records would be skipped silently; lost offsets stop the run",
    "enable.auto.commit": "positions live in the destination's ledger; the group's offsets are"
    " committed to Kafka after the run",
    "enable.auto.offset.store": "positions live in the destination's ledger",
    "isolation.level": "aborted transactions are not payments; reading is always read_committed",
    "enable.partition.eof": "the end of a range is taken from the plan",
    "bootstrap.servers": "use --bootstrap_servers",
    "group.id": "use --group_id",
    "group.instance.id": "partitions are assigned by the plan, never by the group",
    "partition.assignment.strategy": "partitions are assigned by the plan, never by the group",
}
_SECRET: Final = re.compile(
    r"password|secret|token|\.key$|key\.pem|jaas|oauthbearer\.config", re.IGNORECASE
)


class ConsumerConfig(dict[str, str]):
    """librdkafka's names and values. Printing it does not show secrets."""

    def __repr__(self) -> str:
        return repr(
            {key: "<hidden>" if _SECRET.search(key) else value for key, value in self.items()}
        )

    __str__ = __repr__


def load_consumer_config(
    path: str | None, bootstrap_servers: str, group_id: str | None
) -> ConsumerConfig:
    """Settings for every client of the run. Raises UsageError naming file, key, value and the fix.

    Names: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
    """
    config = ConsumerConfig(_read(path) if path else {})
    for key, reason in _OWNED.items():
        if key in config:
            raise UsageError(
                f"--consumer_config={path}: {key}={config[key]} may not be set: {reason}. Remove"
                " the line."
            )
    config["bootstrap.servers"] = bootstrap_servers
    config["group.id"] = group_id or DEFAULT_GROUP
    try:
        # This checks names and values only: the client connects in the background, later.
        Consumer({"log_level": 0, **config}).close()
    except KafkaException as error:
        raise UsageError(
            f"--consumer_config={path}: {error.args[0].str()}. Allowed are librdkafka's names and"
            " values; correct the line."
        ) from error
    return config


def _read(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"--consumer_config={path}: cannot be read ({reason}). Give the path of a properties"
            " file."
        ) from error
    settings: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text[0] in "#!":
            continue
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(
                f"--consumer_config={path}: line {number} is not of the form name=value. Correct"
                " it, or start it with #."
            )
        if key.strip() in settings:
            raise UsageError(
                f"--consumer_config={path}: line {number} sets {key.strip()} a second time. Keep"
                " one of the lines."
            )
        settings[key.strip()] = value.strip()
    return settings
