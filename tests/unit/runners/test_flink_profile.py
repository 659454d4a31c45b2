"""What the Flink profile sets, respects and refuses, before anything is submitted."""

from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

from pipeline.options.run_config import run_config
from pipeline.options.runner import RunnerOptions
from pipeline.streaming import command
from runners.flink.preconditions import ClusterNotReady, check_cluster
from runners.flink.timer_hold import check_timer_hold
from runners.profile import RunnerMisused, RunnerRefused
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError

KAFKA = ["--bootstrap_servers=localhost:9092", "--topic=payments"]
FLINK = [
    "--streaming",
    "--runner=FlinkRunner",
    "--flink_master=localhost:8081",
    "--job_endpoint=localhost:8099",
]
BIGQUERY = ["--destination=bigquery:project.dataset"]
DUCKDB = ["--destination=duckdb:payments.duckdb"]
POOL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


def runner_options(*arguments: str) -> dict[str, Any]:
    options = run_config([*KAFKA, *DUCKDB, *FLINK, *arguments]).beam_options
    return {
        **options.view_as(RunnerOptions).get_all_options(drop_default=True),
        "runner": options.view_as(StandardOptions).runner,
        "environment_type": options.view_as(PortableOptions).environment_type,
    }


def test_all_options_that_the_guarantee_needs_are_set() -> None:
    options = runner_options()
    assert {
        "runner": "FlinkRunner",
        "environment_type": "LOOPBACK",
        "checkpointing_interval": "2000",
        "min_pause_between_checkpoints": "1500",
        "num_concurrent_checkpoints": "1",
        "checkpointing_mode": "EXACTLY_ONCE",
        # A start without a checkpoint loads all ids first, and the first checkpoint waits for it.
        "checkpoint_timeout_millis": "600000",
        "max_bundle_time_mills": "50",
        "max_bundle_size": "100000",
        "finish_bundle_before_checkpointing": "true",
        "externalized_checkpoints_enabled": "true",
        "retain_externalized_checkpoints_on_cancellation": "true",
    }.items() <= options.items()
    assert not {"savepoint_path", "allow_non_restored_state"} & options.keys()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_bundle_time_mills", "500"),
        ("max_bundle_size", "10"),
        ("checkpointing_interval", "60000"),
        ("min_pause_between_checkpoints", "0"),
        ("number_of_execution_retries", "7"),
        ("checkpoint_timeout_millis", "30000"),
    ],
)
def test_an_option_that_only_costs_speed_is_respected(flag: str, value: str) -> None:
    assert runner_options(f"--{flag}={value}")[flag] == value


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--checkpointing_interval=-1"], "nothing can be restored"),
        (["--checkpointing_interval=0"], "nothing can be restored"),
        (["--finish_bundle_before_checkpointing=false"], "waits for ever"),
        (["--externalized_checkpoints_enabled=false"], "nothing can be restored"),
        (["--retain_externalized_checkpoints_on_cancellation=false"], "nothing can be restored"),
        (["--num_concurrent_checkpoints=2"], "more than one at a time"),
        (["--checkpointing_mode=AT_LEAST_ONCE"], "be read again"),
        (["--unaligned_checkpoint_enabled"], "holds records between the steps"),
        (["--force_unaligned_checkpoint_enabled=true"], "holds records between the steps"),
        (["--number_of_execution_retries=0"], "stops at the first lost worker"),
        (["--savepoint_path=file:///x"], "--restore=PATH"),
        (["--allow_non_restored_state"], "--from_tables"),
        (["--max_cache_memory_usage_mb=100"], "state cache"),
        (["--flink_master=[local]"], "cannot restore a checkpoint"),
        (["--flink_submit_uber_jar"], "--job_endpoint=HOST:PORT"),
        (["--flink_job_server_jar=x.jar"], "--job_endpoint=HOST:PORT"),
        (["--environment_type=DOCKER"], "Use LOOPBACK"),
        (["--environment_type=PROCESS"], "Use LOOPBACK"),
        (["--dedup_layout=per_key"], "--dedup_layout=sharded"),
        (POOL, "only one process can open a DuckDB file"),
        (["--experiments=use_loopback_process_worker"], "only one process can open a DuckDB file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_breaks_the_guarantee_is_refused(arguments: list[str], reason: str) -> None:
    with pytest.raises(GuaranteeError) as refused:
        runner_options(*arguments)
    assert reason in refused.value.message
    assert arguments[0].partition("=")[0] in refused.value.message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runner=FlinkRunner"], "without --streaming"),
        ([*FLINK[:2], FLINK[3]], "--flink_master is missing"),
        (FLINK[:3], "--job_endpoint is missing"),
        ([*FLINK[:3], "--job_endpoint=localhost"], "must be HOST:PORT"),
        ([*FLINK, "--environment_type=EXTERNAL"], "--environment_config is missing"),
        ([*FLINK, "--environment_type=CLOUD"], "allowed are LOOPBACK and EXTERNAL"),
        (["--checkpointing_interval=2000"], "only --runner=FlinkRunner has this option"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_missing_is_wrong_usage(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_config([*KAFKA, *BIGQUERY, *arguments])


def test_bigquery_takes_several_processes() -> None:
    options = run_config([*KAFKA, *BIGQUERY, *FLINK, *POOL]).beam_options
    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"


class Cluster:
    """In the place of FlinkRest."""

    address = "localhost:8081"

    def __init__(self, slots: int = 2, **keys: str) -> None:
        self._slots = slots
        self._keys = {key.replace("__", "-").replace("_", "."): text for key, text in keys.items()}

    def configuration(self) -> dict[str, str]:
        return self._keys

    def overview(self) -> dict[str, Any]:
        return {"slots-total": self._slots}


CHECKPOINTS = {"state_checkpoints_dir": "file:///checkpoints"}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "state.checkpoints.dir"),
        ({"execution_checkpointing_unaligned": "true", **CHECKPOINTS}, "unaligned"),
        ({"execution_checkpointing_unaligned_enabled": "TRUE", **CHECKPOINTS}, "unaligned"),
        ({"restart__strategy_type": "none", **CHECKPOINTS}, "restart-strategy.type=none"),
        ({"restart__strategy": "off", **CHECKPOINTS}, "restart-strategy=off"),
    ],
)
def test_a_cluster_without_what_a_restart_needs_is_refused(
    keys: dict[str, str], reason: str
) -> None:
    with pytest.raises(RunnerRefused, match=reason):
        check_cluster(Cluster(**keys), parallelism=1)  # type: ignore[arg-type]


def test_a_cluster_that_is_too_small_is_wrong_usage() -> None:
    check_cluster(Cluster(**CHECKPOINTS), parallelism=2)  # type: ignore[arg-type]
    with pytest.raises(RunnerMisused, match="2 task slot"):
        check_cluster(Cluster(**CHECKPOINTS), parallelism=3)  # type: ignore[arg-type]


def test_a_cluster_without_any_task_manager_is_asked_again_later() -> None:
    """A supervisor that restarts the command must not take a lost TaskManager for wrong usage."""
    cluster: Any = Cluster(slots=0, **CHECKPOINTS)
    with pytest.raises(ClusterNotReady, match="no TaskManager is registered"):
        check_cluster(cluster, parallelism=1)
    streaming: Any = SimpleNamespace(parallelism=1)
    with pytest.raises(TryAgainLater, match=r"8081: no TaskManager .* Nothing was changed"):
        command._check(cluster, streaming, "localhost:8099")


def test_the_installed_beam_lets_a_timer_hold_the_watermark() -> None:
    check_timer_hold()


def test_a_beam_without_the_private_attribute_is_refused() -> None:
    class OtherTimer:
        def __init__(self, *arguments: Any) -> None:
            self._held_at = arguments[2]

        def set(self, fires: Any) -> None:
            """Holds where it likes."""

    with pytest.raises(RunnerRefused, match="_input_timestamp is gone"):
        check_timer_hold(OtherTimer)
