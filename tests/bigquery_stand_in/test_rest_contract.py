"""What BigQuery promises about tables, jobs and results over REST; on the stand-in or the real
service (see service.py).
"""

import base64
import uuid
from decimal import Decimal

import google.api_core.exceptions as api
import pytest
from google.cloud import bigquery

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.appending import append
from tests.bigquery_stand_in.service import (
    COLUMNS,
    Service,
    rows,
    source,
)

# Tables


@source(f"{limits.REST}/tables")
def test_a_table_keeps_schema_partitioning_clustering_and_descriptions(service: Service) -> None:
    name = f"{service.project}.{service.dataset}.contract_{uuid.uuid4().hex}"
    wanted = bigquery.Table(
        name,
        [
            bigquery.SchemaField("id", "STRING", "REQUIRED", description="the key"),
            bigquery.SchemaField("at", "TIMESTAMP"),
        ],
    )
    wanted.time_partitioning = bigquery.TimePartitioning(field="at")
    wanted.clustering_fields = ["id"]
    wanted.description = "a table"
    service.client.create_table(wanted)
    with pytest.raises(api.Conflict):
        service.client.create_table(wanted)
    found = service.client.get_table(name)
    assert [
        (field.name, field.field_type, field.mode, field.description) for field in found.schema
    ] == [
        ("id", "STRING", "REQUIRED", "the key"),
        ("at", "TIMESTAMP", "NULLABLE", None),
    ]
    assert (found.time_partitioning.type_, found.time_partitioning.field) == ("DAY", "at")
    assert (found.clustering_fields, found.description, found.table_type) == (
        ["id"],
        "a table",
        "TABLE",
    )
    assert name.rsplit(".", 1)[-1] in [
        table.table_id for table in service.client.list_tables(service.dataset)
    ]
    service.client.delete_table(name)
    with pytest.raises(api.NotFound):
        service.client.get_table(name)


@source("https://cloud.google.com/bigquery/docs/managing-table-schemas")
def test_columns_can_be_added_and_relaxed_but_not_removed_or_changed(
    service: Service, table: str
) -> None:
    found = service.client.get_table(
        f"{service.project}.{service.dataset}.{table.rsplit('/', 1)[-1]}"
    )
    found.schema = [
        bigquery.SchemaField("id", "STRING"),
        *found.schema[1:],
        bigquery.SchemaField("note", "STRING"),
    ]
    changed = service.client.update_table(found, ["schema"])
    assert [(field.name, field.mode) for field in changed.schema] == [
        ("id", "NULLABLE"),
        ("amount", "NULLABLE"),
        ("at", "NULLABLE"),
        ("note", "NULLABLE"),
    ]
    for bad in (
        changed.schema[1:],
        [*changed.schema, bigquery.SchemaField("must", "STRING", "REQUIRED")],
        [bigquery.SchemaField("id", "INT64"), *changed.schema[1:]],
    ):
        changed.schema = bad
        with pytest.raises(api.BadRequest):
            service.client.update_table(changed, ["schema"])
    assert not append(service.writer, f"{table}/streams/_default", None, rows(None)).error.code


# Jobs and queries


@source(f"{limits.REST}/jobs/insert")
def test_a_job_id_is_taken_once(service: Service, table: str) -> None:
    job_id, statement = (
        f"contract_{uuid.uuid4().hex}",
        f"INSERT INTO {table.rsplit('/', 1)[-1]} (id) VALUES ('a')",
    )
    job = service.client.query(statement, job_id=job_id, job_retry=None)
    job.result()
    assert job.num_dml_affected_rows == 1
    with pytest.raises(api.Conflict):
        service.client.query(statement, job_id=job_id, job_retry=None)
    assert service.client.get_job(job_id).num_dml_affected_rows == 1
    assert service.ids(table) == ["a"]


@source(f"{limits.REST}/jobs/insert")
def test_a_failed_job_has_used_up_its_id(service: Service) -> None:
    job_id = f"contract_{uuid.uuid4().hex}"
    with pytest.raises(api.BadRequest):
        service.client.query("SELECT no_such_column", job_id=job_id, job_retry=None).result(
            job_retry=None
        )
    with pytest.raises(api.Conflict):
        service.client.query("SELECT 1", job_id=job_id, job_retry=None)


@source(f"{limits.REST}/jobs/query")
def test_a_request_id_makes_a_repeated_query_the_same_call(service: Service, table: str) -> None:
    name = f"{service.dataset}.{table.rsplit('/', 1)[-1]}"
    body = {
        "query": f"INSERT INTO {name} (id) VALUES ('a')",
        "useLegacySql": False,
        "requestId": uuid.uuid4().hex,
    }
    call = service.client._connection.api_request
    answers = [
        call(method="POST", path=f"/projects/{service.project}/queries", data=body)
        for _ in range(2)
    ]
    assert [answer["numDmlAffectedRows"] for answer in answers] == ["1", "1"]
    assert service.ids(table) == ["a"]


@source(limits.COSTS)
def test_a_query_above_its_maximum_bytes_billed_fails(service: Service, table: str) -> None:
    service.query(f"INSERT INTO {table.rsplit('/', 1)[-1]} (id) VALUES ('a')")
    with pytest.raises(api.GoogleAPICallError) as refused:
        service.query(f"SELECT id FROM {table.rsplit('/', 1)[-1]}", maximum_bytes_billed=1000)
    assert refused.value.errors[0]["reason"] == "bytesBilledLimitExceeded"
    job = service.client.query(
        f"SELECT id FROM {table.rsplit('/', 1)[-1]}",
        job_config=bigquery.QueryJobConfig(use_query_cache=False),
    )
    job.result()
    assert job.total_bytes_processed == 3
    assert job.total_bytes_billed >= job.total_bytes_processed


@source(f"{limits.REST}/jobs/getQueryResults")
def test_results_come_in_pages(service: Service) -> None:
    result = service.client.query(
        "SELECT n FROM UNNEST(GENERATE_ARRAY(1, 25)) AS n ORDER BY n"
    ).result(page_size=10)
    assert [len(list(page)) for page in result.pages] == [10, 10, 5]


@source(f"{limits.REST}/tabledata/list")
def test_rows_of_a_table_are_listed(service: Service, table: str) -> None:
    service.query(
        f"INSERT INTO {table.rsplit('/', 1)[-1]} (id, amount) VALUES ('a', 1.5), ('b', NULL), ('c',"
        " 2)"
    )
    listed = service.client.list_rows(
        f"{service.project}.{service.dataset}.{table.rsplit('/', 1)[-1]}",
        page_size=2,
        selected_fields=COLUMNS[:2],
    )
    assert sorted(tuple(row.values()) for row in listed) == [
        ("a", Decimal("1.5")),
        ("b", None),
        ("c", Decimal(2)),
    ]


@source(f"{limits.REST}/tables")
def test_a_view_is_a_table_with_a_query(service: Service, table: str) -> None:
    view = bigquery.Table(f"{service.project}.{service.dataset}.contract_{uuid.uuid4().hex}")
    name = f"{service.project}.{service.dataset}.{table.rsplit('/', 1)[-1]}"
    view.view_query = f"SELECT COUNT(*) AS n FROM `{name}`"
    created = service.client.create_table(view)
    assert created.table_type == "VIEW"
    assert [field.name for field in created.schema] == ["n"]
    service.query(f"INSERT INTO {table.rsplit('/', 1)[-1]} (id) VALUES ('a')")
    assert service.query(f"SELECT n FROM {view.table_id}") == [(1,)]


@source(f"{limits.REST}/DataFormatOptions")
def test_rows_on_the_wire_are_strings_in_f_and_v(service: Service) -> None:
    sql = (
        "SELECT 1, TRUE, b'a', TIMESTAMP_MICROS(1500000), [STRUCT(DATE '2026-08-01' AS d)],"
        " CAST('1.50' AS NUMERIC), CAST(NULL AS STRING)"
    )
    call = service.client._connection.api_request
    for int64, instant in ((True, "1500000"), (False, "1.5")):
        body = {"query": sql, "useLegacySql": False, "formatOptions": {"useInt64Timestamp": int64}}
        answer = call(method="POST", path=f"/projects/{service.project}/queries", data=body)
        number, yes, data, at, nested, amount, nothing = (
            cell["v"] for cell in answer["rows"][0]["f"]
        )
        assert (number, yes, base64.b64decode(data), amount, nothing) == (
            "1",
            "true",
            b"a",
            "1.5",
            None,
        )
        assert float(at) == float(instant)
        assert nested == [{"v": {"f": [{"v": "2026-08-01"}]}}]
