"""What a run needs of a broker that checks rights: to read its topics. Not the consumer group."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipeline import cli
from pipeline.check.result import FAILED, NOTED, PASSED
from pipeline.options.run_config import run_config
from pipeline.preflight import preflight
from tests.support.in_memory_kafka import payment, table
from tests.support.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.support.whole_runs import IDS

pytestmark = pytest.mark.cluster


@pytest.fixture
def denied_group(kafka_broker: KafkaBroker) -> Iterator[Callable[[AclOperation], str]]:
    """Denies the user with a password an operation on a consumer group; returns the group."""
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers})
    group = f"group-{uuid.uuid4().hex[:12]}"

    def deny(operation: AclOperation) -> str:
        binding = AclBinding(
            ResourceType.GROUP, group, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation,
            AclPermissionType.DENY,
        )  # fmt: skip
        admin.create_acls([binding])[binding].result(30)
        return group

    yield deny
    everything = AclBindingFilter(
        ResourceType.GROUP, group, ResourcePatternType.LITERAL, None, None, AclOperation.ANY,
        AclPermissionType.ANY,
    )  # fmt: skip
    admin.delete_acls([everything])[everything].result(30)


def arguments(broker: KafkaBroker, folder: Path, topic: str, group: str) -> list[str]:
    config = folder / "consumer.properties"
    config.write_text(
        f"security.protocol=SASL_PLAINTEXT\nsasl.mechanisms=PLAIN\nsasl.username={USER}\n"
        f"sasl.password={PASSWORD}\n"
    )
    return [
        f"--bootstrap_servers={broker.sasl_bootstrap_servers}",
        f"--topic={topic}",
        f"--destination=duckdb:{folder / 'payments.duckdb'}",
        f"--consumer_config={config}",
        f"--group_id={group}",
    ]


@pytest.mark.parametrize("operation", [AclOperation.READ, AclOperation.ALL])
def test_a_missing_right_on_the_group_is_a_warning_and_refuses_no_run(
    kafka_broker: KafkaBroker,
    fresh_topic: Callable[..., str],
    denied_group: Callable[[AclOperation], str],
    tmp_path: Path,
    operation: AclOperation,
) -> None:
    topic = fresh_topic()
    producer = Producer({"bootstrap.servers": kafka_broker.bootstrap_servers})
    for name in ("a", "b"):
        producer.produce(topic, payment(name))
    producer.flush(30)
    given = arguments(kafka_broker, tmp_path, topic, denied_group(operation))
    results = {result.name: result for result in preflight(run_config(given))}
    assert results["consumer group"].status == NOTED
    assert "warning" in results["consumer group"].figure
    assert FAILED not in [result.status for result in results.values()]
    assert "2 payments or copies" in results[f"newest records of {topic}"].figure
    assert not (tmp_path / "payments.duckdb").exists()
    assert cli.main(["run", *given, "--max_future_skew=3650d"]) == 0
    assert table(tmp_path / "payments.duckdb", IDS) == [("a",), ("b",)]


def test_a_group_that_may_be_used_is_no_warning(
    kafka_broker: KafkaBroker, fresh_topic: Callable[..., str], tmp_path: Path
) -> None:
    given = arguments(kafka_broker, tmp_path, fresh_topic(), f"group-{uuid.uuid4().hex[:12]}")
    results = {result.name: result for result in preflight(run_config(given))}
    assert results["consumer group"].status == PASSED
