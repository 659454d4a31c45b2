"""Fixtures for every test: each lives beside the double that it gives, none is imported."""

import gc

from runners import beam_answers

pytest_plugins = [
    "tests.support.examples",
    "tests.support.in_memory_kafka",
    "tests.support.shared_broker",
    "tests.support.flink_cluster",
    "tests.support.spark_servers",
    "tests.support.spark_stage",
    "tests.support.whole_runs",
    "tests.support.checked_file",
    "tests.support.bigquery",
    "tests.support.google_sql",
]


# Pipelines of single steps, too.
beam_answers.remember()


def pytest_collection_finish() -> None:
    """What was imported and collected stays until the end: no collection need look at it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """DuckDB's binding complains of what is left at the end of the process."""
    gc.unfreeze()
