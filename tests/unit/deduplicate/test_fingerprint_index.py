import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.deduplicate.fingerprint_index import NO_BUCKET, FingerprintIndex

# Few distinct prefixes and suffixes, so that ids share their first 8 bytes and differ only in the
# last 2.
fingerprint = st.tuples(
    st.sampled_from([b"\x00" * 8, b"\x00" * 7 + b"\x01", b"\xff" * 8]), st.integers(0, 5)
).map(lambda parts: parts[0] + parts[1].to_bytes(2, "big"))
entry = st.tuples(fingerprint, st.integers(-3, 20))
step = st.one_of(st.lists(entry, max_size=12), st.integers(-4, 21))


def as_rows(fingerprints):
    return np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(-1, 10)


@given(st.lists(step, max_size=12), st.lists(fingerprint, max_size=20))
def test_it_knows_what_a_dict_knows_after_any_order_of_adds_and_expiries(steps, asked):
    index, expected, floor = FingerprintIndex(), {}, NO_BUCKET
    for added_or_expired in steps:
        if isinstance(added_or_expired, int):
            index.expire(added_or_expired)
            floor = max(floor, added_or_expired)
        else:
            alive = [(key, bucket) for key, bucket in added_or_expired if bucket > floor]
            index.add(
                as_rows([key for key, _ in alive]),
                np.array([bucket for _, bucket in alive], dtype=np.int32),
            )
            for key, bucket in alive:
                expected[key] = max(bucket, expected.get(key, NO_BUCKET))
        expected = {key: bucket for key, bucket in expected.items() if bucket > floor}
    assert index.buckets_of(as_rows(asked)).tolist() == [
        expected.get(key, NO_BUCKET) for key in asked
    ]


def test_merged_runs_keep_one_entry_an_id():
    index = FingerprintIndex()
    rows = as_rows([bytes([value]) * 10 for value in range(100)])
    for bucket in range(50):
        index.add(rows, np.full(100, bucket, dtype=np.int32))
    assert len(index) <= 300
    assert index.buckets_of(rows).tolist() == [49] * 100


def test_what_an_empty_index_is_asked_is_unknown():
    assert FingerprintIndex().buckets_of(as_rows([b"0123456789"])).tolist() == [NO_BUCKET]
    assert FingerprintIndex().buckets_of(as_rows([])).tolist() == []
