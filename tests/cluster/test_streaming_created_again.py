"""A topic that is deleted and created again under a running job, on a real broker and cluster."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import PARTITIONS, Sender, now_us
from tests.support.stored_payments import assert_each_payment_once
from tests.support.streaming_command import StreamingCommand


def test_a_topic_that_is_created_again_ends_the_job_before_a_record_of_it_goes_on(
    command: StreamingCommand,
    sender: Sender,
    topic: str,
    kafka_broker: KafkaBroker,
    recreate_topic: Callable[..., None],
) -> None:
    """Twice: a job goes on with the second topic, a bounded run with the third one."""

    def create_again(old: Sender) -> Sender:
        """Ends the job by a new topic, longer than the old one, which would hide where it began."""
        recreate_topic(topic, PARTITIONS)
        new = Sender(kafka_broker.bootstrap_servers, topic, PARTITIONS, old.seed + 1, old.sent)
        before = old.sent.copy()
        new.send(1_000, now_us())
        assert command.ended() == 3
        assert re.search("stopped: .* created again, .*run --streaming --from", command.log)
        assert_each_payment_once(command.file, before)
        return new

    def flags_in_log(wanted: str) -> list[str]:
        """Of the refusal, which says how to go on."""
        found = re.findall(
            rf"`{wanted} (--adopt_topic=\S+ --on_data_loss=accept)` goes", command.log
        )
        return found[-1].split()

    command.start()
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    second = create_again(sender)
    command.run_streaming("--restore=latest")
    assert command.ended() == 3
    command.start("--from_tables", *flags_in_log("run --streaming --from_tables"))
    command.wait_until_read(PARTITIONS)
    third = create_again(second)
    assert command.stop("--lost") == 0
    assert command.bounded_run() == 3
    assert command.bounded_run(*flags_in_log("run")) == 0
    assert_each_payment_once(command.file, third.sent)
