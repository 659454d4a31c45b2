"""A broker that restarts, or is away for long, under a running job."""

from __future__ import annotations

from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import PARTITIONS, Sender, now_us
from tests.support.stored_payments import assert_each_payment_once
from tests.support.streaming_command import StreamingCommand

HOUR_US = 3_600_000_000
IDLE_SECONDS = 15


def test_a_broker_that_restarts_or_is_away_for_longer_than_the_idle_timeout_makes_nothing_late(
    command: StreamingCommand, sender: Sender, kafka_broker: KafkaBroker
) -> None:
    """Event times lie far behind the clock: what a partition that passed for idle got is late."""
    then = now_us() - HOUR_US

    def checkpoint_since(moment_us: int) -> bool:
        newest = command.job().newest_checkpoint()
        return newest is not None and newest.begun_us > moment_us

    def accepts_more() -> None:
        before = command.figures().of("accepted")
        command.wait_for("more is accepted", lambda: command.figures().of("accepted") > before)

    sender.send(300, then)
    with sender.steadily(10, lambda: then):
        command.start("--dedup_horizon=2m", f"--idle_timeout={IDLE_SECONDS}s")
        command.wait_for_checkpoints(1)
        kafka_broker.restart(killed=True)
        accepts_more()
        kafka_broker.kill()
        away_us = now_us() + (IDLE_SECONDS + 5) * 1_000_000
        command.wait_for("a checkpoint long after", lambda: checkpoint_since(away_us))
        kafka_broker.start()
        accepts_more()
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)
