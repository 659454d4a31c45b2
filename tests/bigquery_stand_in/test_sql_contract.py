"""What BigQuery promises about GoogleSQL: parameters, functions, DML, DDL; on the stand-in or the
real service (see service.py).
"""

import datetime
import uuid
from decimal import Decimal

import google.api_core.exceptions as api
import pytest
from google.cloud import bigquery

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.appending import append
from tests.bigquery_stand_in.service import (
    PROJECT,
    UTC,
    Service,
    rows,
    source,
)
from tests.unit.destinations.contract.run_ledger import record
from transforms.destinations.bigquery.queries import Queries, fresh_job_id
from transforms.destinations.bigquery.run_ledger import BigQueryRunLedger
from transforms.destinations.bigquery.run_rows import create_statement
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.destinations.contract.run_tail import Landmark


@source(limits.DML_SYNTAX)
def test_an_update_with_a_condition_is_a_compare_and_set(service: Service, table: str) -> None:
    name = table.rsplit("/", 1)[-1]
    service.query(f"INSERT INTO {name} (id) VALUES ('a')")
    affected = []
    for _ in range(2):
        job = service.client.query(
            f"UPDATE {name} SET amount = 1 WHERE id = 'a' AND amount IS NULL"
        )
        job.result()
        affected.append(job.num_dml_affected_rows)
    assert affected == [1, 0]
    service.query(
        f"UPDATE {name} AS u SET u.amount = s.amount FROM (SELECT 'a' AS id, 2 AS amount) s WHERE"
        " u.id = s.id"
    )
    assert service.query(f"SELECT amount FROM {name}") == [(Decimal(2),)]


@source(limits.DML_SYNTAX)
def test_a_merge_changes_and_inserts_in_one_statement_or_not_at_all(
    service: Service, table: str
) -> None:
    name = table.rsplit("/", 1)[-1]
    service.query(f"INSERT INTO {name} (id, amount) VALUES ('old', 1)")
    merge = f"""MERGE {name} t USING (SELECT 'old' AS id UNION ALL SELECT {{new}}) s ON t.id = s.id
        WHEN MATCHED AND t.amount = 1 THEN UPDATE SET amount = 2
        WHEN NOT MATCHED THEN INSERT (id, amount) VALUES (s.id, 3)"""
    with pytest.raises(api.BadRequest):
        service.query(merge.format(new="CAST(NULL AS STRING)"))
    assert service.query(f"SELECT id, amount FROM {name}") == [("old", Decimal(1))]
    job = service.client.query(merge.format(new="'new'"))
    job.result()
    assert job.num_dml_affected_rows == 2
    assert service.query(f"SELECT id, amount FROM {name} ORDER BY id") == [
        ("new", Decimal(3)),
        ("old", Decimal(2)),
    ]


@source(limits.DML_SYNTAX)
def test_a_merge_may_read_its_target_and_changes_what_its_source_lacks(
    service: Service, table: str
) -> None:
    """As the shard ledger changes the number of its rows, and only if none has another amount."""
    name = table.rsplit("/", 1)[-1]
    service.query(f"INSERT INTO {name} (id, amount) VALUES ('0', 1), ('1', 1), ('-1', 1)")
    merge = f"""MERGE {name} AS t USING (
            SELECT id FROM UNNEST(['0', '2']) AS id
            WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE amount != {{amount}})
        ) AS s ON t.id = s.id
        WHEN MATCHED THEN UPDATE SET amount = 2
        WHEN NOT MATCHED BY TARGET THEN INSERT (id, amount) VALUES (s.id, 3)
        WHEN NOT MATCHED BY SOURCE AND t.amount = {{amount}} AND t.id < '0' THEN
            UPDATE SET amount = 4
        WHEN NOT MATCHED BY SOURCE AND t.amount = {{amount}} THEN DELETE"""
    affected = []
    for amount in (9, 1, 1):
        job = service.client.query(merge.format(amount=amount))
        job.result()
        affected.append(job.num_dml_affected_rows)
    assert affected == [0, 4, 0]
    assert service.query(f"SELECT id, amount FROM {name} ORDER BY id") == [
        ("-1", Decimal(4)),
        ("0", Decimal(2)),
        ("2", Decimal(3)),
    ]


@source(limits.DML_SYNTAX)
def test_update_and_delete_need_a_where_and_required_columns_are_enforced(
    service: Service, table: str
) -> None:
    name = table.rsplit("/", 1)[-1]
    for statement in (
        f"UPDATE {name} SET amount = 1",
        f"DELETE FROM {name}",
        f"INSERT INTO {name} (amount) VALUES (1)",
    ):
        with pytest.raises(api.BadRequest):
            service.query(statement)


@source(limits.DML)
@pytest.mark.skipif(bool(PROJECT), reason="BigQuery is lifting this limit project by project")
def test_rows_of_the_write_api_cannot_be_changed_by_dml_at_once(
    service: Service, table: str
) -> None:
    append(service.writer, f"{table}/streams/_default", None, rows("a"))
    with pytest.raises(api.BadRequest, match="streaming buffer"):
        service.query(f"UPDATE {table.rsplit('/', 1)[-1]} SET amount = 1 WHERE TRUE")


@source("https://cloud.google.com/bigquery/docs/parameterized-queries")
def test_parameters_of_every_type_arrive_as_they_are(service: Service) -> None:
    at = datetime.datetime(2026, 8, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    scalars = [
        ("STRING", "é'"),
        ("BYTES", b"\x00\xff"),
        ("INT64", 1 << 62),
        ("NUMERIC", Decimal("0.000000001")),
        ("BOOL", False),
    ]
    scalars += [("TIMESTAMP", at), ("DATE", at.date()), ("FLOAT64", 0.1), ("JSON", {"a": [1]})]
    parameters = [
        bigquery.ScalarQueryParameter(f"p{position}", kind, value)
        for position, (kind, value) in enumerate(scalars)
    ]
    assert service.query(
        f"SELECT {', '.join(f'@p{n}' for n in range(len(scalars)))}", *parameters
    ) == [tuple(value for _, value in scalars)]
    nothing = bigquery.ScalarQueryParameter("n", "STRING", None)
    array = bigquery.ArrayQueryParameter("a", "INT64", [3, 1])
    assert service.query("SELECT @n, @a, 1 IN UNNEST(@a)", nothing, array) == [(None, [3, 1], True)]
    positional = [bigquery.ScalarQueryParameter(None, "INT64", number) for number in (1, 2, 3)]
    assert service.query(
        "WITH w AS (SELECT ? AS x) SELECT ?, x FROM w WHERE ? = 3", *positional
    ) == [(2, 1)]


@source(
    "https://cloud.google.com/bigquery/docs/parameterized-queries#using_structs_in_parameterized_queries"
)
@pytest.mark.parametrize("count", [0, 2])
def test_an_array_of_structs_is_a_table_in_unnest(service: Service, count: int) -> None:
    kind = bigquery.StructQueryParameterType(
        bigquery.ScalarQueryParameterType("STRING", name="topic"),
        bigquery.ScalarQueryParameterType("INT64", name="last"),
    )
    values = [
        bigquery.StructQueryParameter(
            None,
            bigquery.ScalarQueryParameter("topic", "STRING", "t"),
            bigquery.ScalarQueryParameter("last", "INT64", number),
        )
        for number in range(count)
    ]
    found = service.query(
        "SELECT topic, r.last, position FROM UNNEST(@ranges) AS r WITH OFFSET AS position ORDER BY"
        " position",
        bigquery.ArrayQueryParameter("ranges", kind, values),
    )
    assert found == [("t", number, number) for number in range(count)]


FUNCTIONS = {
    "TO_HEX(SHA256('a'))": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    "SHA256('a') = SHA256(b'a')": True,
    "SUBSTR(SHA256('a'), 1, 10)": bytes.fromhex("ca978112ca1bbdcafac2"),
    "SUBSTR('abcdef', -3, 2)": "de",
    "LEFT(SHA256('a'), 2)": b"\xca\x97",
    "FROM_HEX('00ff')": b"\x00\xff",
    "LENGTH(b'\\x00\\xff')": 2,
    "CAST(CONCAT('0x', SUBSTR(TO_HEX(SHA256('a')), 1, 15)) AS INT64)": int("ca978112ca1bbdc", 16),
    "UNIX_MICROS(TIMESTAMP '2026-08-01 00:00:00.000001+00')": 1_785_542_400_000_001,
    "UNIX_MICROS(TIMESTAMP '2026-08-01 02:00:00+02:00')": 1_785_542_400_000_000,
    "TIMESTAMP_MICROS(-1)": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "TIMESTAMP_TRUNC(TIMESTAMP '2026-08-01 12:34:56+00', MINUTE)": datetime.datetime(
        2026, 8, 1, 12, 34, tzinfo=UTC
    ),
    "TIMESTAMP_DIFF(TIMESTAMP '2026-08-02 00:00:00+00', TIMESTAMP '2026-08-01 12:00:00+00',"
    " DAY)": 0,
    "DATE(TIMESTAMP '2026-08-01 23:59:59+00')": datetime.date(2026, 8, 1),
    "DATE(CURRENT_TIMESTAMP()) = CURRENT_DATE()": True,
    "DIV(-7, 2)": -3,
    "MOD(-7, 3)": -1,
    "2000000000 * 2": 4_000_000_000,
    "1 << 60": 1 << 60,
    "7 / 2": 3.5,
    "(SELECT STRING_AGG(x, '' ORDER BY x DESC) FROM UNNEST(['a', 'b']) AS x)": "ba",
    "(SELECT STRING_AGG(x, b'' ORDER BY x) FROM UNNEST([b'\\xff', b'\\x00']) AS x)": b"\x00\xff",
    "(SELECT ARRAY_AGG(x ORDER BY x LIMIT 2) FROM UNNEST([3, 1, 2]) AS x)": [1, 2],
    "(SELECT COUNTIF(x > 1) FROM UNNEST([1, 2, 3]) AS x)": 2,
    "(SELECT CAST(MOD(SUM(CAST(x AS BIGNUMERIC)), 1000) AS INT64)"
    " FROM UNNEST([9223372036854775807, 9223372036854775807]) AS x)": 614,
    "ARRAY(SELECT o FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS o ORDER BY o)": [0, 1],
    "IFNULL(NULL, COALESCE(NULL, 3))": 3,
    "NULL IS NOT DISTINCT FROM NULL": True,
    'JSON_VALUE(\'{"a": {"b": "c"}}\', \'$.a.b\')': "c",
    "SAFE_CAST('x' AS INT64)": None,
    "GENERATE_ARRAY(1, 7, 3)": [1, 4, 7],
    "EXISTS (SELECT 1 FROM UNNEST([1]) AS x WHERE x = 2)": False,
    "FORMAT('%d-%s', 1, 'a')": "1-a",
    "CAST(b'abc' AS STRING)": "abc",
    "CAST('abc' AS BYTES)": b"abc",
    "STRUCT(1 AS a, [2] AS b)": {"a": 1, "b": [2]},
    "CAST('12.5' AS NUMERIC)": Decimal("12.5"),
    "LEFT(SUBSTR(TO_HEX(SHA256('a')), 2), 3)": "a97",
    "CAST(TIMESTAMP_TRUNC(TIMESTAMP_MICROS(UNIX_MICROS("
    "CAST('2026-08-01 01:00:00+01' AS TIMESTAMP)) + 1), SECOND) AS STRING)": (
        "2026-08-01 00:00:00+00"
    ),
    "SAFE_CAST(CAST('x' AS STRING) AS NUMERIC)": None,
    "SAFE_CAST('x' AS TIMESTAMP)": None,
}


@source("https://cloud.google.com/bigquery/docs/reference/standard-sql/functions-all")
def test_functions_mean_what_bigquery_says(service: Service) -> None:
    (found,) = service.query(f"SELECT {', '.join(FUNCTIONS)}")
    assert dict(zip(FUNCTIONS, found, strict=True)) == FUNCTIONS


QUERIES = {
    "WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c WHERE n < 3)"
    " SELECT n FROM c ORDER BY n": [
        (1,),
        (2,),
        (3,),
    ],
    "SELECT x, ROW_NUMBER() OVER (ORDER BY x DESC) AS r FROM UNNEST([1, 2]) AS x QUALIFY r = 1": [
        (2, 1)
    ],
    "SELECT x, SUM(x) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    " FROM UNNEST([1, 2, 3]) AS x ORDER BY x": [
        (1, None),
        (2, 1),
        (3, 3),
    ],
    "SELECT * EXCEPT (b) FROM (SELECT 1 AS a, 2 AS b)": [(1,)],
    "SELECT x.group FROM (SELECT 1 AS `group`) AS x": [(1,)],
    "SELECT k, COUNT(*) AS n FROM UNNEST(['a', 'b', 'a']) AS k GROUP BY k HAVING n > 1": [("a", 2)],
    "SELECT x FROM UNNEST([3, NULL, 1]) AS x ORDER BY x": [(None,), (1,), (3,)],
    "SELECT s.a, p FROM (SELECT 1 AS a, [5, 6] AS ps) s, UNNEST(s.ps) AS p ORDER BY p": [
        (1, 5),
        (1, 6),
    ],
    "SELECT a FROM (SELECT 1 AS a UNION ALL SELECT 2) FULL JOIN (SELECT 2 AS a) USING (a)"
    " ORDER BY a": [
        (1,),
        (2,),
    ],
}


@source("https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax")
@pytest.mark.parametrize("sql", QUERIES)
def test_queries_mean_what_bigquery_says(service: Service, sql: str) -> None:
    assert service.query(sql) == QUERIES[sql]


@source(limits.REST_ERRORS)
@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT 1::INT64",
        "FROM x",
        "SELECT epoch_us(1)",
        "SELECT COUNT(*) FILTER (WHERE TRUE)",
        "SELECT 1/0",
        "SELECT 1 +",
    ],
)
def test_what_is_not_googlesql_is_an_invalid_query(service: Service, sql: str) -> None:
    with pytest.raises(api.BadRequest) as refused:
        service.query(sql)
    assert refused.value.errors[0]["reason"] == "invalidQuery"


ONES = "(SELECT 1 AS a)"
REFUSED_QUERIES = {
    "SELECT 1 AS a, a + 1 AS b": "Unrecognized name",
    f"SELECT x.a + 1 AS b FROM {ONES} x WHERE b > 1": "Unrecognized name",
    "SELECT 1 UNION SELECT 2": "DISTINCT",
    f"SELECT DISTINCT ON (a) a FROM {ONES}": "Syntax error",
    f"SELECT a FROM {ONES} ORDER BY ALL": "Syntax error",
    f"SELECT a FROM {ONES} WHERE a IN (FROM {ONES})": "Syntax error",
    "SELECT {'a': 1}": "Syntax error",
    "SELECT 1 AS following": "Unexpected keyword",
    f"SELECT x.a FROM {ONES} x LEFT JOIN {ONES} y ON x.a > y.a": "equality of fields",
    f"SELECT x.a FROM {ONES} x FULL JOIN {ONES} y ON x.a = 1"
    " AND y.a IS NOT DISTINCT FROM x.a": "equality of fields",
}


@source("https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax")
@pytest.mark.parametrize("sql", REFUSED_QUERIES)
def test_what_bigquery_refuses_is_refused_although_duckdb_would_run_it(
    service: Service, sql: str
) -> None:
    with pytest.raises(api.BadRequest, match=REFUSED_QUERIES[sql]):
        service.query(sql)


@source(
    "https://cloud.google.com/bigquery/docs/reference/standard-sql/subqueries#correlated_subquery_concepts"
)
def test_a_correlated_subquery_on_a_table_needs_an_equality(service: Service, table: str) -> None:
    name = table.rsplit("/", 1)[-1]
    service.query(
        f"SELECT t.id FROM {name} t WHERE NOT EXISTS (SELECT 1 FROM {name} u WHERE u.id = t.id AND"
        " u.amount > t.amount)"
    )
    service.query(
        f"SELECT t.id FROM {name} t LEFT JOIN {name} u ON u.id = t.id AND u.amount > t.amount"
    )
    for condition in ("u.amount > t.amount", "u.id = 'a' AND u.amount > t.amount"):
        with pytest.raises(api.BadRequest):
            service.query(
                f"SELECT t.id FROM {name} t WHERE NOT EXISTS (SELECT 1 FROM {name} u WHERE"
                f" {condition})"
            )
        with pytest.raises(api.BadRequest):
            service.query(
                f"SELECT (SELECT MAX(u.id) FROM {name} u WHERE {condition}) FROM {name} t"
            )


@source(limits.QUERY_LIMITS)
def test_queries_and_requests_have_a_maximum_size(service: Service) -> None:
    with pytest.raises(api.BadRequest, match="too large"):
        service.query(f"SELECT '{'x' * limits.MAX_QUERY_BYTES}'")
    with pytest.raises(api.GoogleAPICallError) as refused:
        service.query(
            "SELECT LENGTH(@x)",
            bigquery.ScalarQueryParameter("x", "STRING", "x" * limits.MAX_REQUEST_BYTES),
        )
    assert refused.value.code == 413


@source("https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_rules")
def test_query_columns_are_written_by_position_and_with_their_type(
    service: Service, table: str
) -> None:
    name = table.rsplit("/", 1)[-1]
    service.query(f"INSERT INTO {name} (id, amount) SELECT 'a', 1 UNION ALL SELECT 'b', NULL")
    for statement in (
        f"INSERT INTO {name} (amount, id) SELECT 'a', 1",
        f"INSERT INTO {name} (id) SELECT 5",
        f"INSERT INTO {name} (id) SELECT ['a']",
        f"INSERT INTO {name} (id) SELECT 'a', 'b'",
        f"CREATE TABLE {name}_by_name (n INT64, id STRING) AS SELECT 'a' AS id, 1 AS n",
    ):
        with pytest.raises(api.BadRequest):
            service.query(statement)
    assert service.ids(table) == ["a", "b"]


@source("https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language")
def test_ddl_creates_tables_and_views_and_adds_columns(service: Service) -> None:
    name = f"contract_{uuid.uuid4().hex}"
    service.query(f"""CREATE TABLE IF NOT EXISTS {name} (
        id STRING NOT NULL OPTIONS (description = 'the key'), moment TIMESTAMP,
        parts ARRAY<STRUCT<name STRING, size INT64>>)
        PARTITION BY DATE(moment) CLUSTER BY id OPTIONS (description = 'a table')""")
    service.query(f"CREATE TABLE IF NOT EXISTS {name} (other STRING)")
    with pytest.raises(api.Conflict):
        service.query(f"CREATE TABLE {name} (other STRING)")
    service.query(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS note STRING")
    service.query(f"INSERT INTO {name} (id, parts) VALUES ('a', [STRUCT('x' AS name, 1 AS size)])")
    found = service.client.get_table(f"{service.project}.{service.dataset}.{name}")
    assert [field.name for field in found.schema] == ["id", "moment", "parts", "note"]
    assert (found.schema[0].mode, found.schema[0].description, found.description) == (
        "REQUIRED",
        "the key",
        "a table",
    )
    assert (found.time_partitioning.field, found.clustering_fields) == ("moment", ["id"])
    service.query(f"CREATE TABLE {name}_copy AS SELECT id, ARRAY_LENGTH(parts) AS n FROM {name}")
    service.query(
        f"CREATE OR REPLACE VIEW {name}_view AS SELECT id, n FROM {service.dataset}.{name}_copy"
    )
    assert service.query(f"SELECT id, n FROM {name}_view") == [("a", 1)]
    service.query(f"DROP VIEW {name}_view")


@source(limits.DML_SYNTAX)
def test_the_statements_of_the_ledger_are_bigquerys(service: Service) -> None:
    """Ours, word for word: a form that the service refuses would stop every first run."""
    dataset = f"{service.project}.{service.dataset}"
    table = f"`{dataset}.contract_{uuid.uuid4().hex}`"
    queries = Queries(service.client, dataset, 1 << 40)
    ledger = BigQueryRunLedger(queries, table)
    queries.execute(create_statement(table), (), fresh_job_id("contract"))
    assert ledger.read() == []
    genesis, first, other = (
        record(GENESIS, None, COMMITTED),
        record("run-1", GENESIS),
        record("run-2", GENESIS),
    )
    assert (ledger.claim(genesis), ledger.claim(first), ledger.claim(other)) == (True, True, False)
    ledger.mark("run-1", COMMITTED)
    chain = ledger.read()
    assert [(run.run_id, run.status) for run in chain] == [
        (GENESIS, COMMITTED),
        ("run-1", COMMITTED),
    ]
    assert ledger.tail() == list(ledger.backwards())[::-1] == chain
    marks = [Landmark(run.run_id, run.plan_time) for run in chain]
    assert sorted(run.run_id for run in ledger.named(marks)) == [GENESIS, "run-1"]
    assert all(ledger.newest())


PRUNED = {
    "moment >= TIMESTAMP_MICROS(@second)": 2,
    "moment > TIMESTAMP_MICROS(@second) AND id != 'x'": 2,
    "TIMESTAMP_MICROS(@second) >= moment": 2,
    "moment = TIMESTAMP_MICROS(@second)": 1,
    "moment IN (TIMESTAMP_MICROS(@second), TIMESTAMP_MICROS(@second + 86400000000)) AND id = ''": 2,
    "moment >= TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 2000 DAY)": 0,
    "id = 'a'": 3,
    "moment >= TIMESTAMP_MICROS(@second) OR id = 'a'": 3,
    "moment >= (SELECT MAX(moment) FROM UNNEST([TIMESTAMP_MICROS(@second)]) AS moment)": 3,
}
"""Condition -> how many of three days are read."""


@pytest.fixture
def days(service: Service) -> str:
    """A table with one row on each of three days, at noon."""
    name = f"contract_{uuid.uuid4().hex}"
    service.query(f"CREATE TABLE {name} (id STRING, moment TIMESTAMP) PARTITION BY DATE(moment)")
    rows = ", ".join(
        f"('{day}', TIMESTAMP '2026-08-0{n} 12:00:00+00')" for n, day in enumerate("abc", 1)
    )
    service.query(f"INSERT INTO {name} (id, moment) VALUES {rows}")
    return name


SECOND = bigquery.ScalarQueryParameter("second", "INT64", 1_785_672_000_000_000)
A_ROW = 3 + 8
"""Bytes of a text of one letter and of a TIMESTAMP."""


@source("https://cloud.google.com/bigquery/docs/querying-partitioned-tables")
@pytest.mark.parametrize("condition", PRUNED)
def test_only_the_partitions_that_a_condition_leaves_are_read(
    service: Service, days: str, condition: str
) -> None:
    config = bigquery.QueryJobConfig(use_query_cache=False, query_parameters=[SECOND])
    job = service.client.query(f"SELECT id FROM {days} WHERE {condition}", job_config=config)
    job.result()
    # The day of the parameter is the second one.
    read = A_ROW if "moment" in condition else 3
    assert job.total_bytes_processed == PRUNED[condition] * read


@source("https://cloud.google.com/bigquery/docs/using-dml-with-partitioned-tables")
def test_a_statement_reads_all_of_the_partitions_that_it_may_change(
    service: Service, days: str
) -> None:
    """As a run is claimed and marked: by a constant moment in ON and in WHERE."""
    config = bigquery.QueryJobConfig(query_parameters=[SECOND])
    update = f"UPDATE {days} SET id = 'd' WHERE id = 'b' AND moment = TIMESTAMP_MICROS(@second)"
    merge = f"""MERGE {days} AS t USING (
        SELECT IF(step = 'follow', 'd', NULL) AS follows FROM UNNEST(['follow', 'insert']) AS step
        WHERE EXISTS (SELECT 1 FROM {days} WHERE id = 'd' AND moment = TIMESTAMP_MICROS(@second))
    ) AS s ON t.id = s.follows AND t.moment = TIMESTAMP_MICROS(@second)
    WHEN MATCHED THEN UPDATE SET id = 'e'
    WHEN NOT MATCHED THEN INSERT (id, moment) VALUES ('f', TIMESTAMP '2026-08-09 12:00:00+00')"""
    for statement, changed in ((update, 1), (merge, 2)):
        job = service.client.query(statement, job_config=config)
        job.result()
        assert job.num_dml_affected_rows == changed
        assert job.total_bytes_processed < 3 * 2 * A_ROW
    assert service.query(f"SELECT id FROM {days} ORDER BY id") == [("a",), ("c",), ("e",), ("f",)]


# Time travel

_LATER = "TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR)"
_LONG_AGO = "TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 8 DAY)"


@source(limits.TIME_TRAVEL_SYNTAX)
def test_a_table_is_read_as_it_was_at_a_moment(service: Service, table: str) -> None:
    name = table.rsplit("/", 1)[-1]
    moments = []
    for statement in (
        f"INSERT INTO {name} (id, amount) VALUES ('a', 1), ('b', 2)",
        f"UPDATE {name} SET amount = 3 WHERE id = 'a'",
        f"DELETE FROM {name} WHERE id = 'b'",
    ):
        service.query(statement)
        moments += service.query("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())")[0]
    found = [
        service.query(
            f"SELECT t.id, o.amount FROM {name} AS t FOR SYSTEM_TIME AS OF"
            f" TIMESTAMP_MICROS({moment}) LEFT JOIN {name} AS o FOR SYSTEM_TIME AS OF"
            f" TIMESTAMP_MICROS({moment}) ON t.id = o.id ORDER BY id"
        )
        for moment in moments
    ]
    assert found == [
        [("a", Decimal(1)), ("b", Decimal(2))],
        [("a", Decimal(3)), ("b", Decimal(2))],
        [("a", Decimal(3))],
    ]


@source(limits.TIME_TRAVEL_SYNTAX)
@pytest.mark.parametrize(
    "query",
    [
        f"SELECT id FROM {{table}} FOR SYSTEM_TIME AS OF {_LATER}",
        f"SELECT id FROM {{table}} FOR SYSTEM_TIME AS OF {_LONG_AGO}",
        "SELECT id FROM {table} FOR SYSTEM_TIME AS OF at",
        "SELECT id FROM {table} AS t FOR SYSTEM_TIME AS OF (SELECT MAX(at) FROM {table})",
        "SELECT o.id FROM {table} AS t FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({now}) JOIN {table}"
        " AS"
        " o ON t.id = o.id",
    ],
    ids=["in the future", "before the window", "a column", "a query", "two moments"],
)
def test_a_moment_that_cannot_be_read_is_refused(service: Service, table: str, query: str) -> None:
    name = table.rsplit("/", 1)[-1]
    ((now,),) = service.query("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())")
    with pytest.raises(api.BadRequest):
        service.query(query.format(table=name, now=now))
