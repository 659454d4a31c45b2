"""`preflight`: finds out whether `run` with the same arguments could start, and what it would do.

It makes the same plan by the same code, and judges the newest records by the same rules. It writes
nothing: no table, no record of the ledger, no file, no offset of the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict

import msgspec

from pipeline.check.result import FAILED, LATER, NOTED, PASSED, CheckResult, print_results
from pipeline.counted import counted
from pipeline.failures import GUARANTEE_REFUSED, TRY_AGAIN_LATER
from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.newest_records import judge_newest
from pipeline.options.config import RunConfig
from pipeline.run.begin import needs_tables_anew
from pipeline.run.generations import under_their_names
from pipeline.run.look_ahead import ask_topics, look_ahead
from pipeline.run.preconditions import check_clock
from pipeline.run.recover import leave_alone_what_makes_tables
from pipeline.run.settings import check_settings, run_settings, settings_in_force
from pipeline.run.summary import describe_forgotten, describe_start_ignored
from runners.profile import RunnerAway
from transforms.deduplicate.id_files import IdFiles
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import refuse_owned
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED, RunRecord
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.model.moments import moment_in_words
from transforms.model.topic_generations import kafka_topic


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


def preflight(
    config: RunConfig, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> Iterator[CheckResult]:
    """One result for each condition of a run; those that depend on a failed one are left out.

    now_us: the clock, in microseconds.
    """
    with ExitStack() as opened:
        admins: list[KafkaAdmin] = []
        states: list[TopicState] = []
        kafka = f"Kafka at {config.bootstrap_servers}"
        yield _tried(kafka, lambda: _ask_kafka(config, opened, admins, states, now_us))
        if config.streaming is None and config.runner.look is not None:
            yield _tried(f"--runner={config.runner.name}", lambda: _look_at_runner(config))
        if config.state_dir is not None:
            yield _tried("--state_dir", lambda: _look_at_state_dir(config))
        destination = opened.enter_context(
            open_destination(config.destination, **config.destination_options)
        )
        runs: list[RunRecord] = []
        yield _tried("this machine's clock", lambda: _clock(destination, config, now_us))
        ledger = _tried("the ledger", lambda: _read_ledger(destination, config, runs, now_us()))
        yield from _tables(destination, config, runs)
        yield ledger
        if runs and runs[-1].status == PREPARED and ledger.status == PASSED:
            yield CheckResult(
                "an earlier run",
                NOTED,
                f"{runs[-1].run_id} has died, or is becoming visible now; a run finishes it first,"
                " or repairs it where its write streams have expired",
            )
            runs[-1] = msgspec.structs.replace(runs[-1], status=COMMITTED)
        if admins and config.streaming is None:
            yield _group(config, admins[0])
        if admins and ledger.status == PASSED:
            yield from _ahead(config, destination, admins[0], states, runs, now_us)


def _clock(destination: Destination, config: RunConfig, now_us: Callable[[], int]) -> str:
    check_clock(destination, chain_of(destination), config.max_future_skew_us, now_us)
    return f"{moment_in_words(now_us())}, which fits the last run and the destination"


def _ask_kafka(
    config: RunConfig,
    opened: ExitStack,
    admins: list[KafkaAdmin],
    states: list[TopicState],
    now_us: Callable[[], int],
) -> str:
    admin = opened.enter_context(KafkaAdmin(config.consumer_config))
    admin.cluster_id()
    states += ask_topics(config, admin, now_us)
    admins.append(admin)
    partitions = sum(len(state.partitions) for state in states)
    offsets = sum(high - low for state in states for low, high in state.partitions.values())
    found = counted(len(states), "topic"), counted(partitions, "partition")
    return ", ".join((*found, counted(offsets, "offset")))


def _look_at_state_dir(config: RunConfig) -> str:
    assert config.state_dir is not None
    IdFiles(config.state_dir, config.destination).check_folder()
    return config.state_dir


def _look_at_runner(config: RunConfig) -> str:
    assert config.runner.look is not None
    try:
        return config.runner.look(config.beam_options)
    except RunnerAway as away:
        raise TryAgainLater(str(away)) from away


def _tables(
    destination: Destination, config: RunConfig, runs: Sequence[RunRecord]
) -> Iterator[CheckResult]:
    try:
        if needs_tables_anew(destination, runs, config.schema):
            yield CheckResult("tables", PASSED, "empty; the first run makes them anew for --schema")
            return
        yield from (
            CheckResult(what, PASSED, found)
            for what, found in destination.tables.preflight(config.schema)
        )
    except GuaranteeError as error:
        yield _failed(destination.name, error)


def _read_ledger(
    destination: Destination, config: RunConfig, runs: list[RunRecord], now_us: int
) -> str:
    if not destination.tables.exist():
        return "not there yet: the first run creates it"
    runs += destination.runs.tail()
    if not runs:
        return "empty: the first run begins it"
    if config.streaming is None or not (config.streaming.restore or config.streaming.from_tables):
        refuse_owned(runs)
    if runs[-1].status == PREPARED:
        leave_alone_what_makes_tables(runs[-1], now_us)
    check_settings(settings_in_force(runs), config)
    return f"its newest record is of {moment_in_words(runs[-1].plan_time)}; settings fit"


def _group(config: RunConfig, admin: KafkaAdmin) -> CheckResult:
    """Positions are in the ledger; the group is for lag monitors alone."""
    group = config.consumer_config["group.id"]
    try:
        problem = admin.group_problem(group)
    except GuaranteeError as error:
        problem = error.message
    if problem is None:
        return CheckResult("consumer group", PASSED, f"{group} may be used")
    return CheckResult(
        "consumer group",
        NOTED,
        f"warning: {problem}. A run reads all the same, but lag monitors do not see how far; grant"
        f" READ on the group {group}, or name another one with --group_id",
    )


def _ahead(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    states: Sequence[TopicState],
    runs: Sequence[RunRecord],
    now_us: Callable[[], int],
) -> Iterator[CheckResult]:
    try:
        named = under_their_names(states, runs)
        ahead = look_ahead(config, destination, admin, named, runs, run_settings(config), now_us)
    except GuaranteeError as error:
        yield _failed("the plan", error)
        return
    waiting = counted(ahead.waiting, "offset waits", "offsets wait")
    transactions = -(-ahead.waiting // config.max_records_per_run)
    cut = "" if config.streaming else f", in {counted(transactions, 'transaction')}"
    yield CheckResult("the plan", PASSED, f"{waiting}{cut}")
    if ahead.genesis is None and config.start.given is not None:
        ignored = describe_start_ignored(config.start.given, config.start.flag)
        yield CheckResult(f"--{config.start.flag}", NOTED, ignored)
    for topic_name in ahead.plan.adopted:
        yield CheckResult(
            "adopted topic",
            NOTED,
            f"{kafka_topic(topic_name)} goes on as {topic_name}, from its beginning; what was not"
            " read of the old topic is lost",
        )
    for topic in ahead.forgotten:
        yield CheckResult("not named by --topic", NOTED, describe_forgotten(asdict(topic)))
    for state in ahead.states:
        name = f"newest records of {state.topic}"
        try:
            yield judge_newest(name, config, destination, ahead, state)
        except GuaranteeError as error:
            yield _failed(name, error)


def _failed(name: str, error: GuaranteeError) -> CheckResult:
    return CheckResult(name, LATER if isinstance(error, TryAgainLater) else FAILED, error.message)


def _tried(name: str, attempt: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, PASSED, attempt())
    except GuaranteeError as error:
        return _failed(name, error)
    except UsageError as error:
        return CheckResult(name, FAILED, str(error))
