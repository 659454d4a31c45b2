"""What a checkpoint of streaming holds, byte by byte: changing it needs a migration."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.support.streaming.runner import state_settings
from transforms.deduplicate.shard_state import ShardHead
from transforms.destinations.contract.shard_ledger import Epoch, Progress, ShardRow
from transforms.model.elements import Covered, EmptyOffsets
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DUPLICATES, PAYMENTS
from transforms.stream.gaps import Gap, GapsHead
from transforms.stream.pending_gaps import PendingGaps
from transforms.stream.state import (
    StateSettings,
    StreamHead,
    decode_stream_head,
    encode_stream_head,
)
from transforms.stream.totals import TotalsHead, Unwritten

PROGRESS = Progress(3, "ab", {"t": {0: 7}}, {PAYMENTS: 5}, {PAYMENTS: 2}, {PAYMENTS: 9})


def head(settings: StateSettings) -> StreamHead:
    return StreamHead(
        ShardHead(b"\x01", -2, 5, {9: 1}), settings, PROGRESS, {PAYMENTS: "s"}, {"t": "i"}
    )


def test_the_head_of_a_row_shard() -> None:
    encoded = encode_stream_head(head(state_settings(4)))
    assert msgspec.msgpack.decode(encoded) == [
        [b"\x01", -2, 5, {9: 1}],
        [
            *(4, "sharded", 300_000_000, 0, 0, 1, "transaction_id", "event_time"),
            *({}, 1 << 20, "cluster"),
        ],
        [3, "ab", {"t": {0: 7}}, {PAYMENTS: 5}, {PAYMENTS: 2}, {PAYMENTS: 9}],
        {PAYMENTS: "s"},
        {"t": "i"},
    ]
    assert encoded[:12].hex() == "9594c40101fe058109019b04"
    assert decode_stream_head(encoded, state_settings(4)) == head(state_settings(4))


def test_the_heads_of_the_totals_and_gaps_shards() -> None:
    totals = TotalsHead(
        b"\x01",
        PROGRESS,
        "s",
        [
            ((60, "accepted", "EUR"), Unwritten(1, Decimal("1.50"), 9)),
            ((60, "rejected", None), Unwritten(-1, None, 3)),
        ],
    )
    encoded = msgspec.msgpack.encode(totals)
    assert msgspec.msgpack.decode(encoded)[3] == [
        [[60, "accepted", "EUR"], [1, "1.50", 9]],
        [[60, "rejected", None], [-1, None, 3]],
    ]
    assert msgspec.msgpack.decode(encoded, type=TotalsHead) == totals
    pending = PendingGaps("t", 1, [EmptyOffsets(7, 8, "no_record")], [8, -1], [7])
    gaps = GapsHead(b"\x01", PROGRESS, "s", [Gap("t", 0, 3, 4, "no_record")], [pending])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(gaps))[3:] == [
        [["t", 0, 3, 4, "no_record"]],
        [["t", 1, [[7, 8, "no_record"]], [8, -1], [7]]],
    ]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(gaps), type=GapsHead) == gaps


def test_a_row_of_the_ledger() -> None:
    assert ShardRow.__struct_fields__ == (
        "shard",
        "job_id",
        "generation",
        "ledger_id",
        "nonce",
        "epoch",
        "open_epochs",
        "closed_rows",
        "base",
        "latest",
    )
    assert msgspec.json.encode([Epoch(1, {PAYMENTS: "s"})]) == b'[[1,{"payment_transactions":"s"}]]'
    assert (
        msgspec.json.encode(PROGRESS)
        == b'[3,"ab",{"t":{"0":7}},{"payment_transactions":5},{"payment_transactions":2},'
        b'{"payment_transactions":9}]'
    )


def test_a_state_has_passed_what_was_counted_and_appended_but_for_what_is_present_above_it() -> (
    None
):
    assert (PROGRESS.passed(PAYMENTS), PROGRESS.passed(DUPLICATES)) == (9 + 5 - 2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"shards": 5}, {"layout": "per_key"}, {"decoder_version": 2}, {"dedup_key": "id"},
        {"event_time_field": "ts"}, {"max_future_skew_us": 1}, {"dedup_horizon_us": 299_999_999},
        {"max_record_bytes": 2 << 20},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_checkpoint_made_under_other_settings_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(GuaranteeError, match=next(iter(change))):
        decode_stream_head(
            encode_stream_head(head(state_settings(4))), state_settings(**{"shards": 4, **change})
        )


def test_the_refusal_of_another_number_of_shards_names_the_way_with_a_stop() -> None:
    encoded = encode_stream_head(head(state_settings(4)))
    with pytest.raises(GuaranteeError) as refused:
        decode_stream_head(encoded, state_settings(6))
    assert "shards was 4 and is 6" in refused.value.message
    assert "`payment-pipeline stop`" in refused.value.message
    assert refused.value.message.endswith("start with --from_tables --shards=6.")
    with pytest.raises(GuaranteeError) as refused:
        decode_stream_head(encoded, state_settings(4, decoder_version=2))
    assert refused.value.message.endswith("start with --from_tables.")


def test_a_longer_horizon_is_taken_over_and_remembered() -> None:
    longer = state_settings(4, dedup_horizon_us=600_000_000, extra_retention_us=5)
    encoded = encode_stream_head(
        decode_stream_head(encode_stream_head(head(state_settings(4))), longer)
    )
    with pytest.raises(GuaranteeError, match="extra_retention_us was 5 and would shrink to 0"):
        decode_stream_head(encoded, state_settings(4, dedup_horizon_us=600_000_000))


def test_a_checkpoint_of_another_cluster_is_refused() -> None:
    encoded = encode_stream_head(head(state_settings(4)))
    for other in ("other", None):
        with pytest.raises(GuaranteeError, match=f"the Kafka cluster {other}, but the checkpoint"):
            decode_stream_head(encoded, state_settings(4, cluster_id=other))
    unknown = encode_stream_head(head(state_settings(4, cluster_id=None)))
    assert decode_stream_head(unknown, state_settings(4)).settings.cluster_id == "cluster"


def test_a_unit_of_time_may_be_given_but_neither_changed_nor_taken_away() -> None:
    seconds = state_settings(4, epoch_units={"event_time": "s"})
    given = decode_stream_head(encode_stream_head(head(state_settings(4))), seconds)
    for units in ({"event_time": "ms"}, {}):
        with pytest.raises(GuaranteeError, match="epoch_unit of event_time was s and is"):
            decode_stream_head(encode_stream_head(given), state_settings(4, epoch_units=units))


def test_a_topic_that_was_deleted_and_created_again_is_refused() -> None:
    state = head(state_settings(4))
    state.require_topics([Covered("t", "i", 0, 8, 9), Covered("new", None, 0, 0, 1)])
    state.require_topics([Covered("new", "n", 0, 2, 3)])
    assert state.topic_ids == {"t": "i", "new": "n"}
    for found in ("j", None):
        with pytest.raises(GuaranteeError, match="topic t was read with the id i, but"):
            state.require_topics([Covered("t", found, 0, 10, 11)])
