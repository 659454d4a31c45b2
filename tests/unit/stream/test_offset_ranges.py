"""Ranges of offsets against sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms.model.elements import EmptyOffsets
from transforms.stream.offset_ranges import cut, joined, without

CAUSES = ["no_record", "retention"]
gaps = st.dictionaries(st.integers(0, 30), st.sampled_from(CAUSES), max_size=20).map(
    lambda offsets: joined(EmptyOffsets(at, at, offsets[at]) for at in sorted(offsets))
)
ranges = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair)))
)


def offsets(given: object) -> dict[int, str]:
    return {
        offset: cause
        for first, last, cause in given  # type: ignore[attr-defined]
        for offset in range(first, last + 1)
    }


def test_neighbours_of_one_cause_are_one() -> None:
    assert joined([EmptyOffsets(3, 3, "a"), EmptyOffsets(4, 6, "a"), EmptyOffsets(7, 7, "b")]) == [
        (3, 6, "a"),
        (7, 7, "b"),
    ]


@given(gaps, st.integers(-1, 31))
def test_a_cut_keeps_every_offset_on_its_side(whole: list[EmptyOffsets], at: int) -> None:
    below, above = cut(whole, at)
    assert offsets(below) == {key: one for key, one in offsets(whole).items() if key <= at}
    assert offsets(above) == {key: one for key, one in offsets(whole).items() if key > at}
    assert joined([*below, *above]) == whole


@given(gaps, ranges)
def test_what_is_taken_is_taken_whatever_its_order(
    whole: list[EmptyOffsets], taken: list[tuple[int, int]]
) -> None:
    gone = {offset for first, last in taken for offset in range(first, last + 1)}
    left = without(whole, taken)
    assert offsets(left) == {key: one for key, one in offsets(whole).items() if key not in gone}
    assert left == sorted(left)
