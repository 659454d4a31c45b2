from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.options.consumer_config import ConsumerConfig, load_consumer_config
from transforms.model.errors import UsageError


def load(tmp_path: Path, text: str) -> ConsumerConfig:
    file = tmp_path / "consumer.properties"
    file.write_text(text)
    return load_consumer_config(str(file), "broker:9092", None)


def test_names_and_values_reach_librdkafka(tmp_path: Path) -> None:
    config = load(
        tmp_path, "# comment\n! comment\n\n client.id = a=b \nsecurity.protocol=plaintext\n"
    )
    assert config == {
        "client.id": "a=b",
        "security.protocol": "plaintext",
        "bootstrap.servers": "broker:9092",
        "group.id": "payment-pipeline",
    }


@pytest.mark.parametrize(
    "key,value",
    [
        ("auto.offset.reset", "latest"),
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "true"),
        ("isolation.level", "read_uncommitted"),
        ("enable.partition.eof", "true"),
        ("bootstrap.servers", "other:1"),
        ("group.id", "x"),
        ("group.instance.id", "x"),
        ("partition.assignment.strategy", "range"),
    ],
)
def test_what_would_break_the_guarantee_is_refused_with_the_reason(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(UsageError, match=f"{key}={value} may not be set: .+ Remove the line."):
        load(tmp_path, f"{key}={value}\n")


@pytest.mark.parametrize(
    "text,message",
    [
        ("client.id\n", "line 1 is not of the form name=value"),
        ("\n=x\n", "line 2 is not of the form name=value"),
        ("client.id=a\nclient.id=b\n", "line 2 sets client.id a second time"),
        ("clientid=a\n", "clientid"),
        ("fetch.min.bytes=many\n", "fetch.min.bytes"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"--consumer_config=.*consumer\.properties") as wrong:
        load(tmp_path, text)
    assert message in str(wrong.value)


@pytest.mark.parametrize(
    "key",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "ssl.key",
    ],
)
def test_secrets_are_never_printed(key: str) -> None:
    config = ConsumerConfig({key: "s3cret", "sasl.username": "me"})
    for text in (repr(config), str(config), f"{config}", f"{config!r}", "%s" % config):  # noqa: UP031
        assert "s3cret" not in text
        assert "'sasl.username': 'me'" in text


def test_secrets_of_a_run_are_in_neither_its_configuration_nor_beams_options(
    tmp_path: Path,
) -> None:
    from pipeline.options.run_config import run_config

    file = tmp_path / "consumer.properties"
    file.write_text("sasl.username=me\nsasl.password=s3cret\n")
    config = run_config(
        [
            "--bootstrap_servers=b:1",
            "--topic=t",
            "--destination=duckdb:x",
            f"--consumer_config={file}",
        ]
    )
    assert config.consumer_config["sasl.password"] == "s3cret"
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config.beam_options.get_all_options())
