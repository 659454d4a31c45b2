"""The options of a streaming job: each refusal names the flag, its value and the fix."""

from __future__ import annotations

import pytest

from pipeline.options.config import RunConfig
from pipeline.options.run_config import run_config
from transforms.model.errors import UsageError

KAFKA = ["--bootstrap_servers=localhost:9092"]
TOPIC = ["--topic=payments"]
BIGQUERY = ["--destination=bigquery:project.dataset"]
FLINK = [
    "--streaming",
    "--runner=FlinkRunner",
    "--flink_master=http://localhost:8081",
    "--job_endpoint=localhost:8099",
]
POOL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


def config(*arguments: str) -> RunConfig:
    return run_config([*KAFKA, *BIGQUERY, *FLINK, *arguments])


@pytest.mark.parametrize(
    ("arguments", "named", "fix"),
    [
        (["--restore=latest", "--from_tables"], "--restore=latest with --from_tables", "Leave one"),
        (["--restore="], "--restore=:", "path of a checkpoint or savepoint, or latest"),
        (["--detach"], "--detach with --environment_type=LOOPBACK", "use --environment_type=EXTER"),
        (["--topic_pattern=pay("], "--topic_pattern=pay(:", "Correct it; `payments-.*`"),
        (["--metrics_port=0"], "--metrics_port=0:", "from 1 to 65,535"),
        (["--metrics_port=http"], "--metrics_port=http:", "from 1 to 65,535"),
        (
            [*POOL, "--detach", "--metrics_port=9108"],
            "--metrics_port=9108 with --detach",
            "Leave one of them out",
        ),
        (["--shards=0"], "--shards=0:", "from 1 to 4,096"),
        (["--every=10s"], "--every=10s with --streaming", "Leave one of them out"),
        (["--max_rejected_rate=1"], "--max_rejected_rate=1 with --streaming", "nothing to hold"),
        (["--max_records_per_run=9"], "--max_records_per_run=9 with --streaming", "no transact"),
        (["--group_id=mine"], "--group_id=mine with --streaming", "`status` shows"),
        (["--state_dir=none"], "--state_dir=none with --streaming", "in its checkpoints"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused(arguments: list[str], named: str, fix: str) -> None:
    with pytest.raises(UsageError) as refused:
        config(*TOPIC, *arguments)
    assert named in str(refused.value)
    assert fix in str(refused.value)


@pytest.mark.parametrize(
    "argument",
    [
        "--topic_pattern=payments-.*",
        "--restore=latest",
        "--from_tables",
        "--detach",
        "--metrics_port=9108",
    ],
)
def test_an_option_of_streaming_is_refused_for_a_bounded_run(argument: str) -> None:
    with pytest.raises(UsageError) as refused:
        run_config([*KAFKA, *TOPIC, *BIGQUERY, argument])
    assert str(refused.value).startswith(f"{argument} without --streaming: ")
    assert "add --streaming" in str(refused.value)


def test_every_option_reaches_the_configuration() -> None:
    arguments = [*POOL, "--parallelism=2", "--topic_pattern=p-.*", "--restore=file:///c/chk-1"]
    streaming = config(*arguments, "--metrics_port=9108").streaming
    assert streaming is not None
    assert (streaming.topic_pattern, streaming.restore) == ("p-.*", "file:///c/chk-1")
    assert (streaming.from_tables, streaming.detach, streaming.metrics_port) == (False, False, 9108)
    assert (streaming.flink_master, streaming.parallelism) == ("localhost:8081", 2)
    assert (streaming.in_this_process, streaming.shards_given) == (False, False)
    detached = config(*TOPIC, *POOL, "--detach", "--from_tables", "--shards=7").streaming
    assert detached is not None
    assert (detached.detach, detached.from_tables, detached.shards_given) == (True, True, True)


@pytest.mark.parametrize(
    ("arguments", "shards"),
    [
        ([], 4),
        (["--parallelism=2"], 4),
        ([*POOL, "--parallelism=2"], 8),
        ([*POOL, "--parallelism=2", "--shards=5"], 5),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else "",
)
def test_shards_go_by_the_number_of_processes(arguments: list[str], shards: int) -> None:
    assert config(*TOPIC, *arguments).shards == shards


def test_a_job_needs_a_topic_or_a_pattern() -> None:
    with pytest.raises(UsageError, match="--topic"):
        config()
    assert config("--topic_pattern=payments-.*").topics == ()
