"""What `check` asks, in GoogleSQL."""

from __future__ import annotations

from collections.abc import Callable

from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.sql.checks import check_queries


def bigquery_checks(table: Callable[[str], str], as_of: str = "") -> CheckQueries:
    """The questions of `check` in GoogleSQL.

    table: name of a table or view -> its full name, quoted. as_of: see `google_sql`.
    """
    return check_queries(google_sql(table, as_of))
