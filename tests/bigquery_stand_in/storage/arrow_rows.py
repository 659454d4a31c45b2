"""Rows of an append: from Arrow to columns of the table, or the reasons why the service would
refuse them.

Source:
https://cloud.google.com/bigquery/docs/supported-data-types#supported-apache-arrow-data-types. That
table says "is_signed = false" for INTEGER; both signs are taken here, because an INTEGER column
could not be written otherwise.
"""

from __future__ import annotations

from typing import Final

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.bigquery_stand_in.errors import StorageErrorCode, StorageFailure
from tests.bigquery_stand_in.fields import Field
from tests.bigquery_stand_in.storage import arrow_values

MAX_ROW_ERRORS: Final = 1000

RowErrors = dict[int, str]
"""Row index -> what is wrong with it; the first finding per row."""


def read_schema(serialized: bytes) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(serialized))
    except (pa.ArrowInvalid, OSError) as error:
        raise malformed(f"the Arrow schema cannot be read: {error}") from error


def read_batch(serialized: bytes, schema: pa.Schema) -> pa.RecordBatch:
    try:
        return pa.ipc.read_record_batch(pa.py_buffer(serialized), schema)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise malformed(f"the Arrow record batch cannot be read: {error}") from error


def malformed(message: str) -> StorageFailure:
    return StorageFailure(grpc.StatusCode.INVALID_ARGUMENT, message)


def check_schema(schema: pa.Schema, fields: list[Field], table: str) -> None:
    """Once per connection and change of the table: unknown columns and types that do not fit make
    every append fail.
    """
    known = {field["name"].lower(): field for field in fields}
    extra = [name for name in schema.names if name.lower() not in known]
    if extra:
        raise StorageFailure(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Input schema has more fields than BigQuery schema, extra fields: '{','.join(extra)}'",
            storage_code=StorageErrorCode.SCHEMA_MISMATCH_EXTRA_FIELDS,
            entity=table,
        )
    for column in schema:
        if reason := arrow_values.mismatch(column.type, known[column.name.lower()]):
            raise malformed(f"The Arrow schema does not fit the table {table}: {reason}")


def normalized(batch: pa.RecordBatch, fields: list[Field]) -> pa.RecordBatch:
    """All columns of the table in its order, with one Arrow type per column type. Raises
    StorageFailure with the row errors.
    """
    errors: RowErrors = {}
    given = {name.lower(): position for position, name in enumerate(batch.schema.names)}
    columns, names = [], []
    for field in fields:
        position = given.get(field["name"].lower())
        kind = arrow_values.target_type(field)
        column = pa.nulls(batch.num_rows, kind) if position is None else batch.column(position)
        if position is None and field["mode"] == "REPEATED":
            column = pa.array([[]] * batch.num_rows, kind)
        columns.append(_column(column, field, field["name"], errors))
        names.append(field["name"])
    if errors:
        found = sorted(errors.items())[:MAX_ROW_ERRORS]
        raise StorageFailure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "Errors found while processing rows. Please refer to the row_errors field for details.",
            row_errors=found,
        )
    return pa.RecordBatch.from_arrays(columns, names=names)


def _column(column: pa.Array, field: Field, path: str, errors: RowErrors) -> pa.Array:
    missing = column.is_null()
    if column.null_count:
        if field["mode"] == "REQUIRED":
            _report(errors, missing, f"Field {path}: REQUIRED, but the value is missing or NULL")
        if field["mode"] == "REPEATED":
            _report(
                errors, missing, f"Field {path}: a NULL array must be represented by an empty list"
            )
    if field["mode"] != "REPEATED":
        return _values(column, field, path, errors)
    single = {**field, "mode": "NULLABLE"}
    parents = pc.list_parent_indices(column).to_numpy()
    inner: RowErrors = {}
    elements = column.flatten()
    if elements.null_count:
        _report(inner, elements.is_null(), f"Field {path}: an array must not contain NULL")
    values = _values(elements, single, path, inner)
    for index, message in inner.items():
        errors.setdefault(int(parents[index]), message)
    if inner:
        return pa.nulls(len(column), arrow_values.target_type(field))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _values(column: pa.Array, field: Field, path: str, errors: RowErrors) -> pa.Array:
    if field["type"] == "RECORD":
        names = {child.name.lower(): child.name for child in column.type}
        children = []
        for child in field["fields"]:
            name = names.get(child["name"].lower())
            inner: RowErrors = {}
            values = (
                pc.struct_field(column, name)
                if name
                else pa.nulls(len(column), arrow_values.target_type(child))
            )
            children.append(_column(values, child, f"{path}.{child['name']}", inner))
            for index, message in inner.items():
                if column[index].is_valid:  # the fields of a record that is NULL are not missing
                    errors.setdefault(index, message)
        return pa.StructArray.from_arrays(
            children, [child["name"] for child in field["fields"]], mask=column.is_null()
        )
    converted, found = arrow_values.convert(column, field)
    for index, message in found.items():
        errors.setdefault(index, f"Field {path}: {message}")
    return converted


def _report(errors: RowErrors, rows: pa.Array, message: str) -> None:
    for index in np.flatnonzero(rows.to_numpy(zero_copy_only=False)):
        errors.setdefault(int(index), message)
