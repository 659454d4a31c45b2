"""The views in GoogleSQL."""

from __future__ import annotations

from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.sql import views as sql_views


def views(settings: BigQuerySettings) -> dict[str, str]:
    """Name of the view -> its query."""
    return sql_views.views(google_sql(settings.table))
