"""The REST methods that google-cloud-bigquery calls: a path and a body in, a resource out.

Source: https://cloud.google.com/bigquery/docs/reference/rest/v2
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.bigquery_stand_in.billing import table_bytes
from tests.bigquery_stand_in.errors import RestFailure, invalid, not_found
from tests.bigquery_stand_in.rest.job_resources import (
    int64_timestamps,
    job_resource,
    page_bounds,
    query_results,
)
from tests.bigquery_stand_in.rest.jobs import Jobs
from tests.bigquery_stand_in.rest.result_rows import encode_rows
from tests.bigquery_stand_in.tables import insert_table, patch_table
from tests.bigquery_stand_in.warehouse import Table, Warehouse


@dataclass(frozen=True)
class Request:
    """path: behind /bigquery/v2; query: the URL's parameters, one value each; body: the JSON, or an
    empty object.
    """

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]


_PROJECT: Final = r"/projects/(?P<project>[^/]+)"
_DATASET: Final = rf"{_PROJECT}/datasets/(?P<dataset>[^/]+)"
_TABLE: Final = rf"{_DATASET}/tables/(?P<table>[^/]+)"


class RestApi:
    """`route` names the call for the fault plan and gives the function that does it."""

    def __init__(self, warehouse: Warehouse, jobs: Jobs) -> None:
        self._warehouse = warehouse
        self._jobs = jobs
        self._routes: list[tuple[str, str, str, Callable[..., dict[str, Any]]]] = [
            ("GET", rf"{_PROJECT}/datasets", "datasets.list", self._list_datasets),
            ("POST", rf"{_PROJECT}/datasets", "datasets.insert", self._insert_dataset),
            ("GET", _DATASET, "datasets.get", self._get_dataset),
            ("DELETE", _DATASET, "datasets.delete", self._delete_dataset),
            ("GET", rf"{_DATASET}/tables", "tables.list", self._list_tables),
            ("POST", rf"{_DATASET}/tables", "tables.insert", self._insert_table),
            ("GET", _TABLE, "tables.get", self._get_table),
            ("PATCH", _TABLE, "tables.patch", self._patch_table),
            ("DELETE", _TABLE, "tables.delete", self._delete_table),
            ("GET", rf"{_TABLE}/data", "tabledata.list", self._list_rows),
            ("POST", rf"{_PROJECT}/jobs", "jobs.insert", self._insert_job),
            ("GET", rf"{_PROJECT}/jobs/(?P<job>[^/]+)", "jobs.get", self._get_job),
            ("POST", rf"{_PROJECT}/jobs/(?P<job>[^/]+)/cancel", "jobs.cancel", self._cancel_job),
            ("POST", rf"{_PROJECT}/queries", "jobs.query", self._query),
            (
                "GET",
                rf"{_PROJECT}/queries/(?P<job>[^/]+)",
                "jobs.getQueryResults",
                self._query_results,
            ),
        ]

    def route(self, request: Request) -> tuple[str, Callable[[], dict[str, Any]]]:
        """(name, what it does). Raises RestFailure for a path that the stand-in lacks or another
        project.
        """
        for method, pattern, name, do in self._routes:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method:
                parts = found.groupdict()
                if parts.pop("project") != self._warehouse.project:
                    raise RestFailure(
                        403,
                        "accessDenied",
                        f"Access Denied: the stand-in has project {self._warehouse.project} only",
                    )
                return name, lambda do=do, parts=parts: do(request, **parts)
        raise RestFailure(
            404, "notFound", f"the stand-in does not know {request.method} {request.path}"
        )

    def _list_datasets(self, request: Request) -> dict[str, Any]:
        return {
            "kind": "bigquery#datasetList",
            "datasets": [self._dataset(name) for name in sorted(self._warehouse.datasets)],
        }

    def _insert_dataset(self, request: Request) -> dict[str, Any]:
        name = request.body["datasetReference"]["datasetId"]
        kept = {key: request.body[key] for key in ("description", "labels") if key in request.body}
        self._warehouse.create_dataset(
            name, {"location": request.body.get("location", "US"), **kept}
        )
        return self._dataset(name)

    def _get_dataset(self, request: Request, dataset: str) -> dict[str, Any]:
        return self._dataset(dataset)

    def _delete_dataset(self, request: Request, dataset: str) -> dict[str, Any]:
        self._dataset(dataset)
        with self._warehouse.writing:
            if request.query.get("deleteContents") != "true" and any(
                key[0] == dataset for key in self._warehouse.tables
            ):
                raise RestFailure(
                    400,
                    "resourceInUse",
                    f"Dataset {self._warehouse.project}:{dataset} is still in use",
                )
            self._warehouse.drop_dataset(dataset)
        return {}

    def _list_tables(self, request: Request, dataset: str) -> dict[str, Any]:
        self._dataset(dataset)
        names = sorted(name for of, name in list(self._warehouse.tables) if of == dataset)
        start, end = page_bounds(len(names), request.query)
        found = [self._summary(self._warehouse.table(dataset, name)) for name in names[start:end]]
        more = {"nextPageToken": str(end)} if end < len(names) else {}
        return {"kind": "bigquery#tableList", "tables": found, "totalItems": len(names), **more}

    def _insert_table(self, request: Request, dataset: str) -> dict[str, Any]:
        return self._table(
            insert_table(
                self._warehouse, dataset, request.body["tableReference"]["tableId"], request.body
            )
        )

    def _get_table(self, request: Request, dataset: str, table: str) -> dict[str, Any]:
        return self._table(self._warehouse.table(dataset, table))

    def _patch_table(self, request: Request, dataset: str, table: str) -> dict[str, Any]:
        found = self._warehouse.table(dataset, table)
        patch_table(self._warehouse, found, request.body)
        return self._table(found)

    def _delete_table(self, request: Request, dataset: str, table: str) -> dict[str, Any]:
        self._warehouse.drop_table(self._warehouse.table(dataset, table))
        return {}

    def _list_rows(self, request: Request, dataset: str, table: str) -> dict[str, Any]:
        found = self._warehouse.table(dataset, table)
        if found.view_query is not None:
            raise invalid(f"Cannot list a table of type VIEW: {dataset}.{table}")
        selected = request.query.get("selectedFields")
        wanted = {name.lower() for name in selected.split(",")} if selected else None
        fields = [
            field for field in found.fields if wanted is None or field["name"].lower() in wanted
        ]
        columns = ", ".join(f'"{field["name"]}"' for field in fields)
        with self._warehouse.cursor() as cursor:
            cursor.begin()
            total = cursor.execute(f"SELECT COUNT(*) FROM {found.sql_name}").fetchall()[0][0]
            start, end = page_bounds(total, request.query)
            rows = cursor.execute(
                f"SELECT {columns} FROM {found.sql_name} ORDER BY rowid LIMIT {max(end - start, 0)}"
                f" OFFSET {start}"
            ).fetchall()
        more = {"pageToken": str(end)} if end < total else {}
        encoded = encode_rows(rows, fields, int64_timestamps(dict(request.query)))
        return {"kind": "bigquery#tableDataList", "totalRows": str(total), "rows": encoded, **more}

    def _insert_job(self, request: Request) -> dict[str, Any]:
        return job_resource(self._jobs.insert(request.body), self._warehouse.project)

    def _get_job(self, request: Request, job: str) -> dict[str, Any]:
        return job_resource(self._jobs.get(job), self._warehouse.project)

    def _cancel_job(self, request: Request, job: str) -> dict[str, Any]:
        return {
            "kind": "bigquery#jobCancelResponse",
            "job": job_resource(self._jobs.get(job), self._warehouse.project),
        }

    def _query(self, request: Request) -> dict[str, Any]:
        return query_results(self._jobs.query(request.body), self._warehouse.project, request.body)

    def _query_results(self, request: Request, job: str) -> dict[str, Any]:
        return query_results(self._jobs.get(job), self._warehouse.project, dict(request.query))

    def _dataset(self, name: str) -> dict[str, Any]:
        resource = self._warehouse.datasets.get(name)
        if resource is None:
            raise not_found(f"Dataset {self._warehouse.project}:{name}")
        reference = {"projectId": self._warehouse.project, "datasetId": name}
        return {
            "kind": "bigquery#dataset",
            "id": f"{self._warehouse.project}:{name}",
            "datasetReference": reference,
            **resource,
        }

    def _summary(self, table: Table) -> dict[str, Any]:
        reference = {
            "projectId": self._warehouse.project,
            "datasetId": table.dataset,
            "tableId": table.name,
        }
        identity = f"{self._warehouse.project}:{table.dataset}.{table.name}"
        kind = "VIEW" if table.view_query is not None else "TABLE"
        return {
            **table.resource,
            "kind": "bigquery#table",
            "id": identity,
            "tableReference": reference,
            "type": kind,
        }

    def _table(self, table: Table) -> dict[str, Any]:
        resource = {
            **self._summary(table),
            "location": self._warehouse.datasets[table.dataset].get("location", "US"),
        }
        resource["etag"] = f"{table.version}.{table.schema_version}.{resource['lastModifiedTime']}"
        if table.view_query is None:
            with self._warehouse.cursor() as cursor:
                rows = cursor.execute(f"SELECT COUNT(*) FROM {table.sql_name}").fetchall()[0][0]
                resource |= {"numRows": str(rows), "numBytes": str(table_bytes(cursor, table))}
        return resource
