"""Which names are learned. It shows in the speed alone, so it is asked directly."""

from __future__ import annotations

import pytest

from pipeline.options.schema_file import load_schema
from transforms.decode import learned_names
from transforms.decode.learned_names import LearnedNames
from transforms.decode.unknown_fields import UnknownFinder


@pytest.fixture
def names() -> LearnedNames:
    return LearnedNames(UnknownFinder(load_schema(None).fields))


def value(*members: str) -> bytes:
    return f"{{{','.join(members)}}}".encode()


def test_a_name_is_learned_once_enough_values_had_it(names: LearnedNames) -> None:
    assert not names.learn([value('"a":1', '"status":"x"')] * 63)
    names.decoded(63, True)
    assert names.learn([value('"a":1', '"b":{"c":2}')])
    assert names.names == {("a",)}
    assert not names.learn([value('"a":1', '"b":2')] * 63)


def test_of_many_values_a_sample_is_looked_at(names: LearnedNames) -> None:
    few = [value('"few":1')] * 10
    assert names.learn([value('"a":1'), value('"b":2')] * 2_000 + few)
    assert names.names == {("a",), ("b",)}


def test_what_comes_now_and_then_is_not_learned(names: LearnedNames) -> None:
    for _ in range(200):
        assert not names.learn([value('"seldom":1')] * 30)
        names.decoded(5_000, True)
    assert not names.names


def test_names_are_forgotten_when_no_value_has_any(names: LearnedNames) -> None:
    names.learn([value('"a":1')] * 64)
    names.decoded(4_000, True)
    names.decoded(1_000, False)
    assert names.names
    names.decoded(4_999, False)
    assert names.names
    names.decoded(1, False)
    assert not names.names


def test_new_names_take_the_place_of_the_old_ones(names: LearnedNames) -> None:
    old = [f'"old_{number}":1' for number in range(60)]
    assert names.learn([value(*old)] * 64) and len(names.names) == 60
    assert names.learn([value(*old, *(f'"new_{number}":1' for number in range(5)))] * 64)
    assert names.names == {(f"new_{number}",) for number in range(5)}


def test_made_up_names_take_no_memory(names: LearnedNames) -> None:
    for number in range(300):
        members = (f'"n{number}_{member}":1' for member in range(1_000))
        assert not names.learn([value(*members)])
    assert len(names._missed) == learned_names._COUNTED


@pytest.mark.parametrize("name", ['a\\"b', "a\\\\b", "\\n", "\\u0000", "n" * 301])
def test_what_no_struct_can_have_is_not_learned(names: LearnedNames, name: str) -> None:
    assert not names.learn([value(f'"{name}":1')] * 64)


@pytest.mark.parametrize("broken", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 5_000, b'{"a":1'])
def test_broken_values_teach_nothing(names: LearnedNames, broken: bytes) -> None:
    assert not names.learn([broken] * 100)
