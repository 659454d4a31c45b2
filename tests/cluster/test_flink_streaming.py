"""Streaming on a real broker and a real Flink cluster, whatever is killed."""

from __future__ import annotations

import signal
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from pipeline.streaming.flink_job import FlinkJob
from pipeline.streaming.job_report import report_of
from runners.ports import free_ports
from tests.support.payment_sender import PARTITIONS, Sender, now_us
from tests.support.stored_payments import assert_each_payment_once, unobserved_windows
from tests.support.streaming_command import StreamingCommand


def test_from_bounded_runs_to_a_job_and_back(command: StreamingCommand, sender: Sender) -> None:
    sender.send(300, now_us())
    assert command.bounded_run() == 0
    sender.send(300, now_us())
    command.start()
    sender.send(300, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    # The savepoint of the interrupt is the newest.
    command.start("--restore=latest")
    sender.send(300, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.bounded_run() == 3, "the job owns the tables"
    assert command.stop() == 0
    assert unobserved_windows(command.file) == [], "Ctrl-C has written their totals"
    assert_each_payment_once(command.file, sender.sent)
    sender.send(300, now_us())
    assert command.bounded_run() == 0
    assert_each_payment_once(command.file, sender.sent)


def test_an_upgrade_by_savepoint_and_the_figures_that_prometheus_gets(
    command: StreamingCommand, sender: Sender
) -> None:
    """As docs/operations.md says: Flink takes the savepoint and cancels the job with it."""
    sender.send(400, now_us())
    command.start()
    command.wait_until_read(PARTITIONS)
    rest, jid = command.cluster.rest, command.cluster.rest.jobs()[0]["jid"]
    place = rest.configuration()["state.savepoints.dir"]
    body = {"target-directory": place, "cancel-job": True}
    savepoint = rest._savepoint(f"/jobs/{jid}/savepoints", jid, body, 60)
    assert command.ended() == 0, command.log[-3000:]
    (port,) = free_ports(1)
    command.start(f"--restore={savepoint}", f"--metrics_port={port}")
    before = sender.sent.records, len(sender.sent.ids), sender.sent.broken
    sender.send(400, now_us())
    records, ids, broken = sender.sent.records - before[0], len(sender.sent.ids), sender.sent.broken

    def figures() -> dict[str, float]:
        """Name -> the sum over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            name = sample.name.removeprefix("payment_pipeline_")
            found[name] = found.get(name, 0.0) + sample.value
        return found

    def all_served() -> bool:
        served = figures()
        read, known = served.get("records_read_total"), served.get("live_ids")
        return (read, known) == (records, ids) and "checkpoint_bytes" in served

    command.wait_for("the figures of all records", all_served)
    served = figures()
    accepted, copies = served["accepted_total"], served["duplicate_total"]
    assert accepted == ids - before[1]
    assert served["rejected_total"] == broken - before[2]
    assert accepted + copies + served["rejected_total"] == records
    assert served["latency_seconds_count"] == accepted + copies
    assert served["latency_seconds_sum"] > 0
    assert (served["up"], served["running"], served["kafka_lag"]) == (1, 1, 0)
    assert served["appends_total"] > 0
    assert served["appended_bytes_total"] > served["bytes_read_total"] > 0
    assert served["state_bytes"] >= 10 * ids
    assert served["recovered_shards_total"] == 4
    assert served["checkpoint_bytes"] > served["state_bytes"]
    assert served["checkpoint_age_seconds"] < 60
    assert (served["restarts_total"], served["append_retries_total"]) == (0, 0)
    report = report_of(FlinkJob(rest, rest.jobs()[0]["jid"]), now_us())
    assert report.as_json()["checkpoint"]["path"].startswith("file:")
    assert report.figures.live_ids == ids
    command.interrupt()
    assert command.stop() == 0
    assert_each_payment_once(command.file, sender.sent)


def test_a_job_survives_the_end_of_everything(command: StreamingCommand, sender: Sender) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    sender.send(500, now_us())
    command.cluster.kill_task_manager()
    sender.send(500, now_us())
    command.cluster.start_task_manager()
    command.wait_until_read(PARTITIONS)
    # A JobManager that starts again has forgotten the job, and whose checkpoints there are.
    command.cluster.kill_job_manager()
    sender.send(500, now_us())
    command.cluster.start_job_manager()
    assert command.ended() == 5
    assert "Flink does not know the job any more" in command.log
    command.start("--restore=latest")
    command.wait_until_read(PARTITIONS)
    sender.send(500, now_us())
    command.kill()
    command.cluster.kill_everything()
    command.cluster.start(command.cluster.settings)
    command.start("--restore=latest")
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert "the job begins again from its last checkpoint: JobMasterException" in command.log
    assert "Traceback" not in command.log, "the ends of connections are no news"
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)


def test_without_any_checkpoint_a_job_goes_on_from_the_tables(
    command: StreamingCommand, sender: Sender
) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    sender.send(500, now_us())
    command.kill()
    command.start("--from_tables")
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)


def test_behind_a_stop_a_job_begins_with_more_shards(
    command: StreamingCommand, sender: Sender
) -> None:
    """Copies of ids that were paid under the old number come under the new one."""
    command.start("--shards=4")
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop() == 0
    sender.send_copies(200, now_us())
    command.start("--from_tables", "--shards=6")
    command.wait_until_read(PARTITIONS)
    command.wait_for("six shards", lambda: len(command.figures().gauges("live_ids")) == 6)
    sender.send(300, now_us())
    sender.send_copies(100, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop() == 0
    assert_each_payment_once(command.file, sender.sent)


def test_a_task_manager_that_was_taken_for_dead_adds_nothing(
    command: StreamingCommand, sender: Sender
) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    stopped = command.cluster.running("TaskManager")[-1]
    stopped.send(signal.SIGSTOP)
    sender.send(500, now_us())
    command.cluster.start_task_manager(wait=False)
    command.wait_until_read(PARTITIONS)
    stopped.send(signal.SIGCONT)
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)
