"""The contract of the tables, and of a destination as a whole, as tests.

A destination passes them by giving `TablesContract` its fixture `without_tables`, open and with no
tables yet.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from pipeline.options.schema_file import load_schema
from tests.unit.destinations.contract.present_rows import fill, gap
from transforms.destinations.contract.write_streams import COMMITTED_STREAM
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS

SCHEMA = load_schema(None)


class TablesContract:
    def test_tables_are_there_once_they_are_created_and_again_is_nothing(
        self, without_tables: Any
    ) -> None:
        tables = without_tables.tables
        assert dict(tables.preflight(SCHEMA)) and not tables.exist()
        for _ in range(2):
            tables.create(SCHEMA)
            assert tables.exist() and tables.are_empty()
        assert "all fit the schema" in dict(tables.preflight(SCHEMA)).values()

    def test_they_are_empty_until_a_table_of_records_has_a_row(self, without_tables: Any) -> None:
        tables, streams = without_tables.tables, without_tables.streams
        tables.create(SCHEMA)
        streams.send(streams.create(GAPS, COMMITTED_STREAM), 0, gap(0, 5, 9)).wait()
        assert tables.are_empty()
        fill(without_tables)
        assert not tables.are_empty()

    def test_empty_tables_of_another_schema_are_made_anew(self, without_tables: Any) -> None:
        tables = without_tables.tables
        assert not tables.are_for_another_schema(SCHEMA) and tables.are_empty()
        tables.create(SCHEMA)
        assert not tables.are_for_another_schema(SCHEMA)
        key, time, amount = SCHEMA.fields[:3]
        other = replace(SCHEMA, fields=(key, time, replace(amount, type="INT64")))
        assert tables.are_for_another_schema(other)
        asked: list[int] = []
        tables.make_anew(other, lambda: asked.append(1))
        assert len(asked) == 2, "right before each of two tables is dropped"
        assert not tables.are_for_another_schema(other)
        assert tables.are_for_another_schema(SCHEMA)
        tables.make_anew(SCHEMA, lambda: None)
        fill(without_tables)
        with pytest.raises(GuaranteeError, match="has rows"):
            tables.make_anew(other, lambda: None)
        assert not tables.are_empty() and not tables.are_for_another_schema(SCHEMA)

    def test_no_table_is_dropped_when_the_time_for_it_is_over(self, without_tables: Any) -> None:
        def over() -> None:
            raise GuaranteeError("over")

        tables = without_tables.tables
        tables.create(SCHEMA)
        other = replace(SCHEMA, fields=SCHEMA.fields[:3])
        with pytest.raises(GuaranteeError, match="over"):
            tables.make_anew(other, over)
        assert not tables.are_for_another_schema(SCHEMA)

    def test_a_pickled_copy_is_opened_by_itself_and_sees_the_same_tables(
        self, without_tables: Any
    ) -> None:
        without_tables.tables.create(SCHEMA)
        copy = pickle.loads(pickle.dumps(without_tables))
        assert copy.name == without_tables.name
        with copy:
            assert copy.tables.exist()
            stream = copy.streams.create(GAPS)
        assert without_tables.streams.finalize(stream) == 0, "the original is open all the while"
