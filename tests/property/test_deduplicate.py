import secrets
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from tests.property.oracle import Oracle
from tests.support.examples import examples
from tests.support.payments import MINUTE, SHAPE, Payment, decoded, verdicts_by_offset
from tests.support.stateful_double import BundleFailed, StatefulDouble
from transforms.deduplicate.per_key import DeduplicatePerKey, SplitByKey
from transforms.deduplicate.process_memory import forget_indexes
from transforms.deduplicate.settings import DedupSettings
from transforms.deduplicate.shard_state import build_index, decode_head
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.model.fingerprints import split_by_shard
from transforms.model.tables import PAYMENTS

HORIZON = 5 * MINUTE
SHARDS = 3


def dedup_settings(extra):
    return DedupSettings(secrets.token_hex(8), SHARDS, HORIZON + extra, extra, True, SHAPE, None)


# Event times crowd around minute borders, where the edges of "late" and "expired" meet.
event_time = st.builds(
    lambda minute, edge: minute * MINUTE + edge,
    st.integers(-3, 30),
    st.sampled_from([0, 1, 999, 1000, MINUTE - 1001, MINUTE - 1000, MINUTE - 1, 30_000_000]),
)
record = st.tuples(st.sampled_from("abcdefgh"), event_time)
batch = st.tuples(st.integers(0, 2), st.lists(record, min_size=1, max_size=8))
fault = st.sampled_from(["none", "none", "fail", "new instance", "restart", "idle"])
script = st.lists(st.tuples(batch, fault), min_size=1, max_size=25)


class Stream:
    """Partitions with their watermarks: a batch is judged by its own partition's, expiry follows
    the minimum.
    """

    def __init__(self):
        self.watermarks = {}
        self.offsets = {}

    def minimum(self):
        return min(self.watermarks.values())

    def on_time(self, partition, records):
        # A partition first met while running starts at the minimum of the others.
        watermark = self.watermarks.setdefault(
            partition, self.minimum() if self.watermarks else -(10**15)
        )
        payments = []
        for key, time in records:
            offset = self.offsets[partition] = self.offsets.get(partition, -1) + 1
            if time >= watermark:
                payments.append(Payment(key, time, offset, partition))
        return payments

    def seen(self, partition, payments):
        highest = max((payment.event_time for payment in payments), default=-(10**15))
        self.watermarks[partition] = max(self.watermarks[partition], highest - HORIZON)

    def idle(self, partition, clock_us):
        self.watermarks[partition] = max(
            self.watermarks.get(partition, -(10**15)), clock_us - HORIZON
        )


def per_key_elements(elements):
    return [part for element in elements for part in SplitByKey().process(element)]


def run_layouts(steps, extra):
    stream, oracle = Stream(), Oracle(extra)
    settings_ = dedup_settings(extra)
    sharded = StatefulDouble(DeduplicateSharded(settings_))
    per_key = StatefulDouble(DeduplicatePerKey(settings_))
    accepted = []
    for (partition, records), happening in steps:
        payments = stream.on_time(partition, records)
        if happening == "idle":
            stream.idle(partition, max((time for _, time in records)))
        elements = list(split_by_shard(decoded(payments), SHARDS))
        if happening == "fail":
            for double, given_elements in (
                (sharded, elements),
                (per_key, per_key_elements(elements)),
            ):
                with suppress(BundleFailed):
                    double.bundle(given_elements, fail_after=len(given_elements) // 2)
        if happening == "new instance":
            sharded.replace_instance(DeduplicateSharded(settings_))
        if happening == "restart":
            forget_indexes(settings_.job)
            sharded.replace_instance(DeduplicateSharded(settings_))
        expected = oracle.batch(payments)
        assert verdicts_by_offset(sharded.bundle(elements)) == expected
        assert verdicts_by_offset(per_key.bundle(per_key_elements(elements))) == expected
        accepted += [
            payment
            for payment in payments
            if expected[payment.partition, payment.offset] == PAYMENTS
        ]
        stream.seen(partition, payments)
        for layout in (oracle, sharded, per_key):
            layout.advance_watermark(stream.minimum())
    return sharded, per_key, oracle, accepted


@examples(300)
@given(script, st.sampled_from([0, 2 * MINUTE]))
def test_both_layouts_say_what_the_brute_force_oracle_says(steps, extra):
    sharded, per_key, oracle, accepted = run_layouts(steps, extra)
    times = [(payment.id, payment.event_time) for payment in accepted]
    assert len(times) == len(set(times)), "a copy with the same event time was accepted twice"
    assert {key for key, cells in per_key.state.items() if cells} == oracle.live_ids()
    assert sum(
        sum(decode_head(cells["head"]).live.values()) for cells in sharded.state.values() if cells
    ) == len(oracle.live_ids())


@examples(200)
@given(script)
def test_the_index_always_is_what_the_state_says(steps):
    sharded, _, _, _ = run_layouts(steps, 0)
    for cells in sharded.state.values():
        if not cells:
            continue
        head = decode_head(cells["head"])
        blobs = [blob for name, value in cells.items() if name.startswith("ids_") for blob in value]
        rebuilt = build_index(head.expired_through, blobs)
        assert sum(head.live.values()) <= len(rebuilt) or not head.live
