"""Bounded runs and streaming jobs in turns, while payments flow."""

from __future__ import annotations

from tests.support.payment_sender import Sender, now_us
from tests.support.stored_payments import assert_each_payment_once, assert_no_check_fails
from tests.support.streaming_command import StreamingCommand


def test_the_tables_change_hands_again_and_again_while_payments_flow(
    command: StreamingCommand, sender: Sender
) -> None:
    with sender.steadily(20, now_us):
        for _ in range(2):
            assert command.bounded_run() == 0
            assert_no_check_fails(command.file)
            command.start()
            command.wait_for("it accepts", lambda: command.figures().of("accepted") > 0)
            command.wait_for_checkpoints(2)
            command.interrupt()
            assert command.stop() == 0
            assert_no_check_fails(command.file)
    assert command.bounded_run() == 0
    assert_each_payment_once(command.file, sender.sent)
