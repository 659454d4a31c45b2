"""--schema: a BigQuery JSON schema file, checked field by field, as a PaymentSchema.

Format: https://cloud.google.com/bigquery/docs/schemas#specifying_a_json_schema_file
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from transforms.model.errors import UsageError
from transforms.model.schema import (
    ARROW_TYPES,
    DEDUP_COLUMN,
    EPOCH_UNITS,
    EVENT_TIME_COLUMN,
    PaymentSchema,
    SchemaField,
)
from transforms.model.tables import KAFKA_COLUMNS, REJECTED_SCHEMA

_SYNONYMS: Final = {
    "INTEGER": "INT64",
    "FLOAT": "FLOAT64",
    "BOOLEAN": "BOOL",
    "DECIMAL": "NUMERIC",
    "STRUCT": "RECORD",
}
_MODES: Final = ("NULLABLE", "REQUIRED", "REPEATED")
_OUR_COLUMNS: Final = {
    "unknown_fields",
    *(field.name for field in KAFKA_COLUMNS),
    *REJECTED_SCHEMA.names,
} - {
    DEDUP_COLUMN,
    EVENT_TIME_COLUMN,
}
_RESERVED_PREFIXES: Final = (
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "__",
)
"""BigQuery reserves all but the last: https://cloud.google.com/bigquery/docs/schemas#column_names.

The last is refused because Python's own attributes are named so: nothing that holds a record as an
object has to tell the two apart.
"""

_DEFAULT: Final = "the default schema"
"""In messages, in the place of --schema=FILE."""

_ALLOWED: Final = ", ".join([*ARROW_TYPES, "RECORD"])


def load_schema(
    path: str | None,
    *,
    dedup_key: str = DEDUP_COLUMN,
    event_time_field: str = EVENT_TIME_COLUMN,
    amount_field: str | None = None,
    currency_field: str | None = None,
    epoch_unit: str | None = None,
) -> PaymentSchema:
    """Reads a schema file; path None: the default schema.

    amount_field None: `amount` if the schema has it as NUMERIC or INT64, else no amounts in the
    totals; likewise `currency`. epoch_unit: of each TIMESTAMP without a key "epochUnit". Raises
    UsageError naming the file, the field, its value, what is allowed and the fix.
    """
    file = Path(path) if path is not None else Path(__file__).with_name("default_schema.json")
    source = f"--schema={path}" if path is not None else _DEFAULT
    fields = _with_unit(_parse_fields(source, _read_json(source, file), ""), epoch_unit)
    fields = _name_column(source, fields, "dedup_key", dedup_key, DEDUP_COLUMN, "STRING")
    fields = _name_column(
        source, fields, "event_time_field", event_time_field, EVENT_TIME_COLUMN, "TIMESTAMP"
    )
    amount = _totals_column(source, fields, "amount", amount_field, ("NUMERIC", "INT64"))
    currency = _totals_column(source, fields, "currency", currency_field, ("STRING",))
    return PaymentSchema(fields, dedup_key, event_time_field, amount, currency)


def _read_json(source: str, file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{source}: cannot be read ({error.strerror}). Give the path of a BigQuery"
            " JSON schema file."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{source}: is not JSON ({error}). Give a list of fields with name, type and mode."
        ) from error


def _parse_fields(source: str, content: Any, parent: str) -> tuple[SchemaField, ...]:
    if not isinstance(content, list) or not content:
        raise UsageError(
            f"{source}: {parent.rstrip('.') or 'the file'} must hold a non-empty list of"
            " fields, each with name, type and mode."
        )
    fields = tuple(_parse_field(source, entry, parent) for entry in content)
    names = [field.name.lower() for field in fields]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"{source}: field {parent}{repeated[0]} comes twice (BigQuery ignores case)."
            " Name each field once."
        )
    return fields


def _parse_field(source: str, entry: Any, parent: str) -> SchemaField:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("name"), str)
        or not isinstance(entry.get("type"), str)
    ):
        raise UsageError(
            f"{source}: {json.dumps(entry)} is not a field; each needs a name and a type."
        )
    name, kind, mode = (
        entry["name"],
        entry["type"].upper(),
        str(entry.get("mode", "NULLABLE")).upper(),
    )
    kind = _SYNONYMS.get(kind, kind)
    where = f"{source}: field {parent}{name}"
    if not name.isidentifier() or not name.isascii() or len(name) > 300:
        raise UsageError(
            f"{where}: a name is letters, digits and underscores, not starting with a digit, up to"
            " 300 of them. Rename it."
        )
    if name.upper().startswith(_RESERVED_PREFIXES):
        raise UsageError(
            f"{where}: BigQuery reserves names that start with {', '.join(_RESERVED_PREFIXES)}."
            " Rename it."
        )
    if kind == "BIGNUMERIC":
        raise UsageError(
            f"{where} is BIGNUMERIC, whose 76 digits do not fit 128-bit decimals; it could only be"
            " rounded. Use NUMERIC or STRING."
        )
    if kind not in ARROW_TYPES and kind != "RECORD":
        raise UsageError(f"{where} has the type {entry['type']}; allowed are {_ALLOWED}.")
    if mode not in _MODES:
        raise UsageError(f"{where} has the mode {entry['mode']}; allowed are {', '.join(_MODES)}.")
    if not parent and name.lower() in _OUR_COLUMNS:
        raise UsageError(
            f"{where}: this column is the pipeline's own. Reserved are"
            f" {', '.join(sorted(_OUR_COLUMNS))}. Rename it."
        )
    if kind != "RECORD" and "fields" in entry:
        raise UsageError(
            f"{where} is {entry['type']} and has fields; only a RECORD has. Make it RECORD, or take"
            " the fields away."
        )
    if given := [key for key in ("precision", "scale", "maxLength") if key in entry]:
        raise UsageError(
            f"{where} has {', '.join(given)}, which nothing here would enforce. Take it away; the"
            " type's own limits hold."
        )
    nested = (
        _parse_fields(source, entry.get("fields"), f"{parent}{name}.") if kind == "RECORD" else ()
    )
    return SchemaField(name, name, kind, mode, nested, _epoch_unit(where, entry, kind))


def _epoch_unit(where: str, entry: dict[str, Any], kind: str) -> str | None:
    if "epochUnit" not in entry:
        return None
    unit = entry["epochUnit"]
    if unit not in EPOCH_UNITS:
        raise UsageError(
            f"{where} has the epochUnit {json.dumps(unit)}; allowed are {', '.join(EPOCH_UNITS)}."
        )
    if kind != "TIMESTAMP":
        raise UsageError(
            f"{where} is {entry['type']} and has an epochUnit; only a TIMESTAMP has. Make it"
            " TIMESTAMP, or take the epochUnit away."
        )
    return str(unit)


def _with_unit(fields: tuple[SchemaField, ...], unit: str | None) -> tuple[SchemaField, ...]:
    """The fields with the unit at each TIMESTAMP that has none, within RECORDs too."""
    return tuple(
        replace(
            field,
            fields=_with_unit(field.fields, unit),
            epoch_unit=field.epoch_unit or (unit if field.type == "TIMESTAMP" else None),
        )
        for field in fields
    )


def _name_column(
    source: str, fields: tuple[SchemaField, ...], flag: str, name: str, column: str, kind: str
) -> tuple[SchemaField, ...]:
    field = next((field for field in fields if field.name == name), None)
    if field is None:
        raise UsageError(f"--{flag}={name}: {_has_no(name, source, fields)}")
    if field.type != kind or field.mode != "REQUIRED":
        raise UsageError(
            f"--{flag}={name}: must be {kind} REQUIRED, but {source} says {field.type}"
            f" {field.mode}. Name another field, or {_change(source)}."
        )
    if any(other is not field and other.name.lower() == column for other in fields):
        raise UsageError(
            f"--{flag}={name} becomes the column {column}, but {source} has another field"
            f" {column}. To rename that one, {_change(source)}."
        )
    return tuple(replace(other, column=column) if other is field else other for other in fields)


def _totals_column(
    source: str,
    fields: tuple[SchemaField, ...],
    default: str,
    name: str | None,
    kinds: tuple[str, ...],
) -> str | None:
    field = next((field for field in fields if field.name == (name or default)), None)
    if field is not None and field.type in kinds and field.mode != "REPEATED":
        return field.column
    if name is None:
        return None
    if field is None:
        raise UsageError(f"--{default}_field={name}: {_has_no(name, source, fields)}")
    raise UsageError(
        f"--{default}_field={name}: must be {' or '.join(kinds)}, but {source} says"
        f" {field.type} {field.mode}. Name another field, or {_change(source)}."
    )


def _has_no(name: str, source: str, fields: tuple[SchemaField, ...]) -> str:
    return (
        f"{source} has no field {name} (it has: {', '.join(field.name for field in fields)});"
        f" name one of them, or {_change(source)}."
    )


def _change(source: str) -> str:
    return "give --schema=FILE" if source == _DEFAULT else "change that file"
