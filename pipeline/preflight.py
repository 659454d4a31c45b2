"""`preflight`: finds out whether `run` with the same arguments could start.

No payment is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pipeline.check.result import FAILED, LATER, NOTED, PASSED, CheckResult, print_results
from pipeline.failures import GUARANTEE_REFUSED, TRY_AGAIN_LATER
from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.config import RunConfig
from pipeline.run.make_plan import backlog
from pipeline.run.preconditions import check_clock, check_cluster, check_stream_quota
from pipeline.run.settings import check_settings, settings_in_force
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.model.moments import moment_in_words


def preflight_command(
    config: RunConfig, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Prints every result. 0: a run can start; 3: it would be refused; 5: not known now.

    Tables are compared with the schema, not created. now_us: the clock, in microseconds.
    """
    results = list(preflight(config, now_us))
    print_results(results, config.json)
    found = {result.status for result in results}
    return GUARANTEE_REFUSED if FAILED in found else TRY_AGAIN_LATER if LATER in found else 0


def preflight(config: RunConfig, now_us: Callable[[], int]) -> Iterator[CheckResult]:
    """One result for each condition of a run; those that depend on a failed one are left out."""
    states: list[TopicState] = []
    cluster: list[str | None] = []
    yield _tried(
        f"Kafka at {config.bootstrap_servers}",
        lambda: _ask_kafka(config, states, cluster, now_us),
    )
    with open_destination(config.destination, **config.destination_options) as destination:
        runs: list[RunRecord] = []
        yield _tried("this machine's clock", lambda: _clock(destination, config, now_us))
        yield from _tables(destination, config)
        yield _tried("the ledger", lambda: _read_ledger(destination, config, runs, cluster))
        if states and runs:
            yield _tried("write streams", lambda: _quota(destination, config, runs, states))
        elif states:
            yield CheckResult(
                "write streams", NOTED, "known once the first run has written down its positions"
            )


def _clock(destination: Destination, config: RunConfig, now_us: Callable[[], int]) -> str:
    check_clock(destination, config.max_future_skew_us, now_us)
    return f"{moment_in_words(now_us())}, which fits the last run and the destination"


def _ask_kafka(
    config: RunConfig,
    states: list[TopicState],
    cluster: list[str | None],
    now_us: Callable[[], int],
) -> str:
    with KafkaAdmin(config.consumer_config) as admin:
        cluster.append(admin.cluster_id())
        states += [admin.topic_state(topic, now_us()) for topic in config.topics]
    partitions = sum(len(state.partitions) for state in states)
    offsets = sum(high - low for state in states for low, high in state.partitions.values())
    return f"{len(states)} topic(s), {partitions} partitions, {offsets:,} offsets"


def _tables(destination: Destination, config: RunConfig) -> Iterator[CheckResult]:
    try:
        yield from (
            CheckResult(what, PASSED, found)
            for what, found in destination.tables.preflight(config.schema)
        )
    except GuaranteeError as error:
        yield _failed(destination.name, error)


def _read_ledger(
    destination: Destination, config: RunConfig, runs: list[RunRecord], cluster: list[str | None]
) -> str:
    if not destination.tables.exist():
        return "not there yet: the first run creates it"
    runs += destination.runs.read()
    if not runs:
        return "empty: the first run begins it"
    check_settings(settings_in_force(runs), config)
    if cluster:
        check_cluster(runs, cluster[0])
    return f"{len(runs)} records; settings and cluster fit"


def _quota(
    destination: Destination, config: RunConfig, runs: list[RunRecord], states: list[TopicState]
) -> str:
    waiting = backlog(runs, states)
    check_stream_quota(
        waiting, config.max_records_per_run, config.shards, destination.streams_per_hour
    )
    return (
        f"{waiting:,} records wait, in {-(-waiting // config.max_records_per_run):,} transaction(s)"
    )


def _failed(name: str, error: GuaranteeError) -> CheckResult:
    return CheckResult(name, LATER if isinstance(error, TryAgainLater) else FAILED, error.message)


def _tried(name: str, attempt: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, PASSED, attempt())
    except GuaranteeError as error:
        return _failed(name, error)
    except UsageError as error:
        return CheckResult(name, FAILED, str(error))
