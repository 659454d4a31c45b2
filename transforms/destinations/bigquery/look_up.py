"""What a table of BigQuery is like: its description, which costs nothing to ask for."""

from __future__ import annotations

from google.api_core.exceptions import Forbidden, NotFound
from google.cloud import bigquery

from transforms.destinations.bigquery.retry import ROLES, reachable
from transforms.model.errors import GuaranteeError


def look_up(client: bigquery.Client, table: bigquery.TableReference) -> bigquery.Table | None:
    """None where there is no such table. Raises GuaranteeError where it may not be looked at."""
    try:
        with reachable(f"what table {table.table_id} is like"):
            return client.get_table(table)
    except NotFound:
        return None
    except Forbidden as error:
        raise GuaranteeError(
            f"BigQuery refuses access to {table.table_id} ({error.message}). {ROLES}"
        ) from error


def columns_of(client: bigquery.Client, table: str) -> dict[str, str] | None:
    """Of any table or view, PROJECT.DATASET.TABLE: column -> type; None where there is none.

    Raises GuaranteeError where it may not be looked at.
    """
    found = look_up(client, bigquery.TableReference.from_string(table))
    return None if found is None else {field.name: field.field_type for field in found.schema}
