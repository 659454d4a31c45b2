"""Which messages are read by their layout, and when layouts are given up."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.options.schema_file import load_schema
from pipeline.produce.message_generator import MessageGenerator
from transforms.decode import layout_reader
from transforms.decode.layout import Layout, layout_of
from transforms.decode.layout_reader import LayoutReader

SCHEMA = load_schema(None)
PAYMENT = b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","amount":%s,"currency":"EUR"}'
MANY = 300


def a_reader() -> LayoutReader:
    return LayoutReader(SCHEMA.fields, SCHEMA.amount_column, 4096)


def taught(*messages: Sequence[bytes]) -> LayoutReader:
    found = a_reader()
    for some in messages:
        found.learn(some, np.arange(len(some)))
    return found


def members(number: int, order: Sequence[int]) -> bytes:
    found = list(json.loads(PAYMENT % (b'"%d"' % number)).items())
    return json.dumps(dict(found[place] for place in order)).encode()


def test_messages_of_one_producer_are_read_by_the_layouts_of_those_before_them() -> None:
    generator = MessageGenerator(1, 0, duplicate_rate=0.1)
    before, after = (
        [message.value or b"" for message in generator.take(2 * MANY)] for _ in range(2)
    )
    read = taught(before).read(after)
    assert read is not None and read.taken.all()
    assert read.columns[0].to_pylist() == [json.loads(value)["transaction_id"] for value in after]


def test_only_those_that_are_not_laid_out_so_are_left() -> None:
    reader = taught([PAYMENT % b"1"] * MANY)
    others = {
        7: None,
        40: b"",
        41: PAYMENT % b"01",
        90: PAYMENT % b'"1"',
        299: PAYMENT % b"1" + b"x",
    }
    read = reader.read([others.get(row, PAYMENT % b"%d" % row) for row in range(MANY)])
    assert read is not None
    assert np.flatnonzero(~read.taken).tolist() == sorted(others)
    assert read.columns[2].to_pylist() == [row for row in range(MANY) if row not in others]


def test_few_messages_and_long_ones_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = taught([PAYMENT % b"1"] * MANY)
    assert reader.read([PAYMENT % b"1"] * 10) is None
    assert a_reader().read([PAYMENT % b"1"] * MANY) is None
    monkeypatch.setattr(layout_reader, "_LARGEST", 1000)
    assert reader.read([PAYMENT % b"1"] * MANY) is None


def test_where_no_two_messages_are_laid_out_alike_most_slices_are_not_looked_at() -> None:
    random.seed(1)
    orders = [random.sample(range(4), 4) for _ in range(MANY)]
    reader, looked = a_reader(), 0
    slices = 300
    for _ in range(slices):
        messages = [members(row, order) for row, order in enumerate(orders)]
        looked += reader.read(messages) is not None
        reader.learn(messages, np.arange(MANY))
        random.shuffle(orders)
    assert 0 < looked < 15
    alike = [PAYMENT % b"1"] * MANY
    waited = 0
    while (read := reader.read(alike)) is None or not read.taken.all():
        reader.learn(alike, np.arange(MANY))
        waited += 1
        assert waited <= layout_reader._LONGEST_PAUSE + 2
    assert all(reader.read(alike) is not None for _ in range(5))


def test_the_layouts_that_are_in_use_stay() -> None:
    orders = [[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3], [3, 1, 2, 0]] + [
        [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2], [0, 2, 1, 3], [0, 1, 3, 2], [0, 3, 2, 1],
    ]  # fmt: skip
    reader = a_reader()
    kept = [members(row, orders[0]) for row in range(MANY)]
    for order in orders:
        reader.learn([members(row, order) for row in range(MANY)], np.arange(MANY))
        read = reader.read(kept)
        assert read is not None and read.taken.all()


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        (b'{"transaction_id":"a"}', (b'{"transaction_id":"', b'"}')),
        (b' { "transaction_id" : "a" } ', (b' { "transaction_id" : "', b'" } ')),
        (b'{"amount":-1.5,"payer_id":null}', (b'{"amount":', b',"payer_id":null}')),
        (b'{"transaction_id":"a","transaction_id":"b"}', None),
        (b'{"transaction\\u005fid":"a"}', None),
        (b'{"transaction_id":"\\n"}', None),
        (b'{"transaction_id":1}', None),
        (b'{"amount":1e3}', None),
        (b'{"amount":[1]}', None),
        (b'{"stranger":"a"}', None),
        (b'{"transaction_id":"a"%s}' % (b" " * 600), None),
        (b"{}", None),
        (b"[]", None),
    ],
)
def test_a_layout_is_what_stands_around_the_values(
    message: bytes, texts: tuple[bytes, ...] | None
) -> None:
    found = layout_of(message, SCHEMA.fields)
    assert (found and found.texts) == texts
    assert found is None or isinstance(found, Layout)
