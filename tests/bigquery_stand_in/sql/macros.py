"""Functions of GoogleSQL that DuckDB lacks or that mean something else there, as macros of DuckDB.

The overloads by type are what sqlglot alone cannot give: SUBSTR of BYTES and of STRING are one name
in GoogleSQL. Source: https://cloud.google.com/bigquery/docs/reference/standard-sql/functions-all
"""

from typing import Final

_BYTES_FROM = "(CASE WHEN s < 0 THEN greatest(length(x) + s, 0) WHEN s = 0 THEN 0 ELSE s - 1 END)"
_HEX_FROM = _BYTES_FROM.replace("length(x)", "octet_length(x)")

MACROS: Final = (
    f"""CREATE OR REPLACE MACRO main.bq_substr
        (x BLOB, s) AS unhex(substr(hex(x), 2 * {_HEX_FROM} + 1)),
        (x VARCHAR, s) AS substr(x, {_BYTES_FROM} + 1),
        (x BLOB, s, n) AS unhex(substr(hex(x), 2 * {_HEX_FROM} + 1, 2 * n)),
        (x VARCHAR, s, n) AS substr(x, {_BYTES_FROM} + 1, n)""",
    """CREATE OR REPLACE MACRO main.bq_left
        (x BLOB, n) AS unhex(substr(hex(x), 1, 2 * n)),
        (x VARCHAR, n) AS left(x, n)""",
    """CREATE OR REPLACE MACRO main.bq_right
        (x BLOB, n) AS unhex(substr(hex(x), greatest(2 * (octet_length(x) - n), 0) + 1)),
        (x VARCHAR, n) AS right(x, n)""",
    """CREATE OR REPLACE MACRO main.bq_timestamp
        (x VARCHAR) AS (x::TIMESTAMPTZ AT TIME ZONE 'UTC'),
        (x TIMESTAMP) AS x,
        (x DATE) AS x::TIMESTAMP""",
    """CREATE OR REPLACE MACRO main.bq_string(x) AS CASE
        WHEN typeof(x) = 'BLOB' THEN decode(x::VARCHAR::BLOB)
        WHEN typeof(x) = 'TIMESTAMP'
        THEN regexp_replace(x::VARCHAR, '(\\.[0-9]*?)0+$', '\\1') || '+00'
        WHEN typeof(x) LIKE 'DECIMAL%'
        THEN regexp_replace(regexp_replace(x::VARCHAR, '(\\.[0-9]*?)0+$', '\\1'), '\\.$', '')
        WHEN typeof(x) = 'DOUBLE' THEN regexp_replace(x::VARCHAR, '\\.0$', '')
        ELSE x::VARCHAR END""",
    "CREATE OR REPLACE MACRO main.bq_bytes(x VARCHAR) AS encode(x), (x BLOB) AS x",
    "CREATE OR REPLACE MACRO main.bq_divide(x, y) AS CASE WHEN y = 0 THEN error('division by zero:"
    " ' || x || ' / ' || y) ELSE x / y END",
    "CREATE OR REPLACE MACRO main.bq_unix_seconds(x) AS CAST(floor(epoch_us(x) / 1000000) AS"
    " BIGINT)",
    "CREATE OR REPLACE MACRO main.bq_timestamp_seconds(x) AS make_timestamp(CAST(x AS BIGINT) *"
    " 1000000)",
    "CREATE OR REPLACE MACRO main.bq_timestamp_millis(x) AS make_timestamp(CAST(x AS BIGINT) *"
    " 1000)",
    "CREATE OR REPLACE MACRO main.bq_timestamp_micros(x) AS make_timestamp(CAST(x AS BIGINT))",
)
