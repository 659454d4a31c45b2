"""What the Spark profile sets, respects and refuses, before anything is submitted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apache_beam.options.pipeline_options import DebugOptions, PortableOptions, StandardOptions

from pipeline.options.run_config import run_config
from pipeline.options.runner import RunnerOptions
from transforms.model.errors import GuaranteeError, UsageError

KAFKA = ["--bootstrap_servers=localhost:9092", "--topic=payments"]
SPARK = ["--runner=SparkRunner", "--job_endpoint=localhost:8099"]
BIGQUERY = ["--destination=bigquery:project.dataset"]
DUCKDB = ["--destination=duckdb:payments.duckdb"]
POOL = ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
PROCESS = [
    "--environment_type=PROCESS",
    "--environment_config=" + json.dumps({"command": "/opt/python-worker"}),
]


def runner_options(*arguments: str) -> dict[str, Any]:
    options = run_config([*KAFKA, *DUCKDB, *SPARK, *arguments]).beam_options
    return {
        **options.view_as(RunnerOptions).get_all_options(drop_default=True),
        "runner": options.view_as(StandardOptions).runner,
        "experiments": options.view_as(DebugOptions).experiments,
        "environment_type": options.view_as(PortableOptions).environment_type,
        "environment_cache_millis": options.view_as(PortableOptions).environment_cache_millis,
    }


def test_all_options_that_a_run_needs_are_set() -> None:
    options = runner_options()
    assert {
        "runner": "SparkRunner",
        "environment_type": "LOOPBACK",
        "environment_cache_millis": "3000",
        "storage_level": "MEMORY_AND_DISK",
        "no_progress_seconds": "600",
    }.items() <= options.items()
    assert "disable_logging_submission_environment" in options["experiments"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("storage_level", "DISK_ONLY"),
        ("cache_disabled", "true"),
        ("bundle_size", "10"),
        ("no_progress_seconds", "60"),
        ("environment_cache_millis", "0"),
        ("enable_spark_metric_sinks", "false"),
    ],
)
def test_an_option_that_only_costs_speed_is_respected(flag: str, value: str) -> None:
    assert runner_options(f"--{flag}={value}")[flag] == value


def test_an_experiment_of_the_user_stays_beside_ours() -> None:
    experiments = runner_options("--experiments=mine")["experiments"]
    assert {"mine", "disable_logging_submission_environment"} <= set(experiments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--streaming"], "Use --every=10s"),
        (["--dedup_layout=per_key"], "Use --dedup_layout=sharded"),
        (["--output_executable_path=run.jar"], "leave the option out"),
        (["--spark_submit_uber_jar"], "Use --job_endpoint=HOST:PORT"),
        (["--spark_rest_url=http://localhost:6066"], "Use --job_endpoint=HOST:PORT"),
        (["--spark_job_server_jar=x.jar"], "Use --job_endpoint=HOST:PORT"),
        (["--max_cache_memory_usage_mb=100"], "state cache"),
        (["--environment_type=DOCKER"], "Use LOOPBACK"),
        (["--storage_level=OFF_HEAP"], "allowed are MEMORY_AND_DISK"),
        (["--cache_disabled=perhaps"], "must be true or false"),
        (["--bundle_size=many"], "must be a whole number"),
        (["--no_progress_seconds=1"], "from 10 on"),
        (["--spark_cores=0"], "from 1 on"),
        (POOL, "only one process can open a DuckDB file"),
        (PROCESS, "only one process can open a DuckDB file"),
        (["--experiments=use_loopback_process_worker"], "Use --environment_type=PROCESS"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_option_that_cannot_hold_is_refused(arguments: list[str], reason: str) -> None:
    with pytest.raises(GuaranteeError) as refused:
        runner_options(*arguments)
    assert reason in refused.value.message
    assert arguments[0].partition("=")[0] in refused.value.message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (SPARK[:1], "--job_endpoint is missing"),
        ([SPARK[0], "--job_endpoint=embed"], "must be HOST:PORT"),
        ([*SPARK, "--spark_master_url=spark://host:7077"], "would ignore the option"),
        ([*SPARK, PROCESS[0]], "--environment_config is missing"),
        ([*SPARK, PROCESS[0], "--environment_config=/opt/x"], "must be JSON"),
        ([*SPARK, PROCESS[0], '--environment_config={"image": "x"}'], "must be JSON"),
        ([*SPARK, "--environment_type=CLOUD"], "allowed are LOOPBACK, PROCESS and EXTERNAL"),
        ([*SPARK, "--environment_type=EXTERNAL"], "--environment_config is missing"),
        ([*SPARK, *POOL[:1], "--environment_config=pool"], "must be the HOST:PORT of a worker"),
        ([*SPARK, "--checkpointing_interval=2000"], "only --runner=FlinkRunner has this option"),
        (["--storage_level=DISK_ONLY"], "only --runner=SparkRunner has this option"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_missing_is_wrong_usage(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_config([*KAFKA, *BIGQUERY, *arguments])


@pytest.mark.parametrize("workers", [PROCESS, POOL], ids=["PROCESS", "EXTERNAL"])
def test_bigquery_takes_several_processes(workers: list[str]) -> None:
    config = run_config([*KAFKA, *BIGQUERY, *SPARK, *workers])
    kind = config.beam_options.view_as(PortableOptions).environment_type
    assert workers[0] == f"--environment_type={kind}"
    assert not config.runner.in_one_process({"environment_type": kind})


@pytest.mark.parametrize(
    ("flags", "shards"), [([], 4), (["--spark_cores=2"], 4), (["--spark_cores=16"], 16)]
)
def test_a_large_run_has_a_shard_for_each_core(flags: list[str], shards: int) -> None:
    assert run_config([*KAFKA, *DUCKDB, *SPARK, *flags]).shards == shards
    assert run_config([*KAFKA, *DUCKDB, *SPARK, *flags, "--shards=7"]).shards == 7


def test_a_direct_run_gets_nothing_of_it() -> None:
    options = run_config([*KAFKA, *BIGQUERY]).beam_options
    assert not {"storage_level", "no_progress_seconds"} & options.get_all_options(True).keys()
