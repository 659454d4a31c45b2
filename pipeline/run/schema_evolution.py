"""How --schema may differ from the schema that a destination was filled with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.model.errors import GuaranteeError
from transforms.model.schema import PaymentSchema


def check_evolution(before: Sequence[Mapping[str, Any]], after: PaymentSchema) -> None:
    """A later run may gain NULLABLE or REPEATED columns and nothing else.

    before: the schema in the last run record, as `PaymentSchema.to_json` wrote it. Raises
    GuaranteeError naming the column.
    """
    now = {field.column: field.to_json() for field in after.fields}
    for old in before:
        name = old["name"]
        if name not in now:
            raise GuaranteeError(
                f"--schema has no column {name}, but this destination was filled with one; columns"
                " may only be added. Give the --schema that it was filled with (and its --dedup_key"
                " and --event_time_field), with columns added if you like."
            )
        if now[name] != old:
            raise GuaranteeError(
                f"--schema: column {name} was {json.dumps(old)} and is {json.dumps(now[name])}; it"
                " may not change, nor gain or lose a field within it. Put it back, and add a column"
                " of its own beside it."
            )
    old_names = {old["name"] for old in before}
    for name, field in now.items():
        if name not in old_names and field["mode"] == "REQUIRED":
            raise GuaranteeError(
                f"--schema: new column {name} is REQUIRED, but rows without it exist. Make it"
                " NULLABLE."
            )
