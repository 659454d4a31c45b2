"""Batches of streaming: split among the shards, sent, and joined again."""

from __future__ import annotations

from apache_beam.coders import registry

from tests.support.payments import Payment, decoded
from transforms.model.elements import (
    Covered,
    EmptyOffsets,
    GapAnswer,
    PassedGaps,
    StreamBatch,
    merge,
)
from transforms.model.fingerprints import split_for_stream

SHARDS = 4


def read(first: int, last: int, *, partition: int = 0, topic_id: str = "id") -> Covered:
    gap = EmptyOffsets(last, last, "no_record")
    return Covered("payments", topic_id, partition, first, last, [gap])


def batch(covered: Covered, *payments: Payment) -> StreamBatch:
    ((_, split),) = split_for_stream(decoded(payments), covered, 1)
    return split


def test_every_shard_gets_the_read_and_its_own_rows_and_payloads() -> None:
    payments = [Payment(letter, 0, offset) for offset, letter in enumerate("abcdefgh")]
    covered = Covered("payments", "id", 0, 0, 9, [], {offset: b"%d" % offset for offset in (1, 4)})
    parts = dict(split_for_stream(decoded(payments[:5]), covered, SHARDS))
    assert list(parts) == list(range(SHARDS))
    assert sum(part.payments.num_rows for part in parts.values()) == 5
    for part in parts.values():
        (range_of_read,) = part.covered
        assert (range_of_read.first, range_of_read.last) == (0, 9)
        offsets = part.payments.column("kafka_offset").to_pylist()
        assert list(range_of_read.payloads) == [at for at in offsets if at in (1, 4)]


def test_reads_that_follow_each_other_are_one_range() -> None:
    merged = merge(
        [
            batch(read(0, 3), Payment("a", 0, 1)),
            batch(read(5, 7, partition=1), Payment("b", 0, 5, partition=1)),
            batch(read(4, 8), Payment("c", 0, 4)),
        ]
    )
    assert merged.payments.column("transaction_id").to_pylist() == ["a", "b", "c"]
    assert merged.covered == [
        Covered(
            "payments",
            "id",
            0,
            0,
            8,
            [EmptyOffsets(3, 3, "no_record"), EmptyOffsets(8, 8, "no_record")],
        ),
        read(5, 7, partition=1),
    ]


def test_reads_that_do_not_follow_each_other_stay_apart_in_their_order() -> None:
    """The shard refuses them: here they must only not be hidden."""
    for second in (read(5, 8), read(3, 8), read(4, 8, topic_id="other")):
        assert merge([batch(read(0, 3)), batch(second)]).covered == [read(0, 3), second]


def test_a_batch_and_an_answer_come_out_of_their_coders_as_they_went_in() -> None:
    covered = Covered("payments", None, 0, 0, 3, [EmptyOffsets(2, 3, "no_record")], {0: b"{}"})
    sent = batch(covered, Payment("a", 0, 0))
    coder = registry.get_coder(StreamBatch)
    received = coder.decode(coder.encode(sent))
    assert received == sent
    answer = GapAnswer(1, [PassedGaps("payments", 0, [EmptyOffsets(2, 3, "no_record")], [3])])
    coder = registry.get_coder(GapAnswer)
    assert coder.decode(coder.encode(answer)) == answer


def test_a_batch_comes_out_of_its_coder_as_it_went_in_with_rejected_records_and_without() -> None:
    payments = [Payment("a", 0, 0), Payment("b", 0, 1)]
    coder = registry.get_coder(StreamBatch)
    for rejected in ((), [(None, None, 2), ("c", 0, 3)]):
        ((_, sent),) = split_for_stream(decoded(payments, rejected), read(0, 9), 1)
        found = coder.decode(coder.encode(sent))
        assert found.covered == sent.covered
        assert found.payments.equals(sent.payments, check_metadata=True)
        assert found.rejected.equals(sent.rejected, check_metadata=True)
        assert found.rejected.num_rows == len(rejected)
