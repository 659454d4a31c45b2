"""The tables and views in BigQuery.

They are created when missing, and compared with the schema before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core.exceptions import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed
from google.cloud import bigquery

from transforms.destinations.bigquery.look_up import look_up
from transforms.destinations.bigquery.queries import Queries, fresh_job_id
from transforms.destinations.bigquery.retry import ROLES, reachable
from transforms.destinations.bigquery.run_rows import create_statement
from transforms.destinations.bigquery.settings import NEVER, BigQuerySettings
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.bigquery.table_shapes import (
    TableShape,
    differences,
    has_other_columns,
    lacking_columns,
    table_shapes,
)
from transforms.destinations.bigquery.views import views
from transforms.destinations.contract.tables import has_rows
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.schema import PaymentSchema
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, ROW_TABLES, RUNS


@dataclass(frozen=True)
class Comparison:
    """The tables of the schema, compared with those that exist.

    missing: tables to be created; found: the others; additions: their new nullable columns by
    table.
    """

    missing: Sequence[TableShape]
    found: Mapping[str, bigquery.Table]
    additions: Mapping[str, Sequence[bigquery.SchemaField]]
    has_ledger: bool


class BigQueryTables:
    """The tables of a BigQuery dataset; see contract/tables.py.

    Two processes may create at once: the later one finds it done.
    """

    def __init__(
        self,
        client: bigquery.Client,
        queries: Queries,
        streams: BigQueryStreams,
        settings: BigQuerySettings,
    ) -> None:
        self._client = client
        self._queries = queries
        self._streams = streams
        self._settings = settings

    def create(self, schema: PaymentSchema) -> None:
        compared = self._compare(schema)
        for shape in compared.missing:
            self._create(shape)
        for name, fields in compared.additions.items():
            table = compared.found[name]
            table.schema = [*table.schema, *fields]
            with _explained(f"adding columns to table {self._settings.prefix}{name}"):
                self._client.update_table(table, ["schema"])
        if not compared.has_ledger:
            self.create_with_rows(RUNS, create_statement(self._settings.table(RUNS)))
        if self._settings.create_tables != NEVER:
            self._create_views()

    def are_for_another_schema(self, schema: PaymentSchema) -> bool:
        return self._settings.create_tables != NEVER and any(self._others(schema))

    def make_anew(self, schema: PaymentSchema, still_mine: Callable[[], None]) -> None:
        for shape in list(self._others(schema)):
            if not self._is_empty(shape.name):
                raise GuaranteeError(has_rows(shape.name))
            with _explained(f"making table {self._settings.prefix}{shape.name} anew"):
                still_mine()
                self._client.delete_table(self._reference(shape.name), not_found_ok=True)
            self._create(shape)
        self.create(schema)

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        """Compares the tables, and tries a query and an empty write stream.

        The stream is never committed.
        """
        compared = self._compare(schema)
        names = [shape.name for shape in compared.missing] + ([] if compared.has_ledger else [RUNS])
        found = (
            "all fit the schema"
            if not names
            else f"not there yet, the first run creates them: {', '.join(names)}"
        )
        if compared.additions:
            found += f"; --update_schema adds columns to {', '.join(compared.additions)}"
        yield f"tables in {self._settings.url}", found
        self._queries.query("SELECT 1 AS one")
        yield "queries", f"allowed, up to {self._settings.max_bytes_billed:,} bytes each"
        if GAPS in compared.found:
            self._streams.finalize(self._streams.create(GAPS))
            yield "write streams into the tables", "allowed"

    def exist(self) -> bool:
        return self._has(RUNS)

    def are_empty(self) -> bool:
        return all(self._is_empty(table) for table in ROW_TABLES if self._has(table))

    def clock_us(self) -> int:
        """BigQuery's clock, in microseconds; reads no bytes.

        Raises GuaranteeError where the dataset is missing, or no query may run.
        """
        self._check_dataset()
        found = self._queries.query("SELECT UNIX_MICROS(CURRENT_TIMESTAMP()) AS now")
        return int(found.column("now")[0].as_py())

    def create_with_rows(self, name: str, statement: str) -> None:
        """Creates a ledger by CREATE TABLE AS SELECT; does nothing if it exists.

        Of two processes that create it at once, one fails, because the table is there.
        """
        if self._has(name):
            return
        if self._settings.create_tables == NEVER:
            raise GuaranteeError(
                f"missing: {name}, and --create_tables=never is in force; --create_tables=if_needed"
                " creates it."
            )
        try:
            self._queries.execute(statement, (), fresh_job_id("create"))
        except (GuaranteeError, Conflict):
            if not self._has(name):
                raise

    def _is_empty(self, table: str) -> bool:
        """COUNT(*) alone reads no bytes."""
        (found,) = self._queries.query(
            f"SELECT COUNT(*) AS n FROM {self._settings.table(table)}"
        ).to_pylist()
        return not found["n"]

    def _others(self, schema: PaymentSchema) -> Iterator[TableShape]:
        """Payment tables that are there with other columns than the schema's."""
        for shape in table_shapes(schema):
            if shape.name in (PAYMENTS, DUPLICATES):
                table = self._get(shape.name)
                if table is not None and has_other_columns(shape, table):
                    yield shape

    def _has(self, name: str) -> bool:
        return self._get(name) is not None

    def _compare(self, schema: PaymentSchema) -> Comparison:
        """Compares all tables with the schema, and changes nothing.

        Raises GuaranteeError: everything that is missing or differs is said in one message.
        """
        expirations = self._check_dataset()
        shapes = table_shapes(schema)
        found = {
            shape.name: table for shape in shapes if (table := self._get(shape.name)) is not None
        }
        missing = [shape for shape in shapes if shape.name not in found]
        additions = {
            shape.name: lacking_columns(shape, found[shape.name])
            for shape in shapes
            if shape.name in found
        }
        has_ledger = self._has(RUNS)
        problems = [] if has_ledger and len(additions) == len(shapes) else expirations
        problems += [
            problem
            for shape in shapes
            if shape.name in found
            for problem in differences(shape, found[shape.name])
        ]
        problems += self._not_allowed(
            [*(shape.name for shape in missing), *([] if has_ledger else [RUNS])], additions
        )
        if problems:
            raise GuaranteeError(
                f"the tables in {self._settings.project}.{self._settings.dataset} do not fit:"
                f" {'; '.join(problems)}."
            )
        return Comparison(
            missing,
            found,
            {name: fields for name, fields in additions.items() if fields},
            has_ledger,
        )

    def _not_allowed(
        self, missing: Sequence[str], additions: dict[str, list[bigquery.SchemaField]]
    ) -> Iterator[str]:
        if missing and self._settings.create_tables == NEVER:
            yield (
                f"missing: {', '.join(missing)}, and --create_tables=never is in force;"
                " --create_tables=if_needed creates them"
            )
        for name, fields in additions.items():
            if fields and not self._settings.update_schema:
                yield (
                    f"table {name} has no column(s) {', '.join(field.name for field in fields)};"
                    " --update_schema adds nullable ones"
                )

    def _check_dataset(self) -> list[str]:
        """The defaults of the dataset that new tables must not have."""
        try:
            with reachable(f"what dataset {self._settings.dataset} is like"):
                found = self._client.get_dataset(
                    f"{self._settings.project}.{self._settings.dataset}"
                )
        except NotFound as error:
            raise GuaranteeError(
                f"--destination=bigquery:{self._settings.project}.{self._settings.dataset}: there"
                " is no such dataset. Create it where your data may"
                " be kept (`bq mk --location=... --dataset PROJECT:DATASET`), or correct the name."
            ) from error
        except Forbidden as error:
            raise GuaranteeError(
                f"BigQuery refuses access to {self._settings.dataset} ({error.message}). {ROLES}"
            ) from error
        defaults = {
            "table": found.default_table_expiration_ms,
            "partition": found.default_partition_expiration_ms,
        }
        return [
            f"the dataset lets each new {what} expire after {after} ms, so payments, and the ledger"
            " that knows of them, would vanish. Take that default"
            " away, or create the tables without it"
            for what, after in defaults.items()
            if after
        ]

    def _get(self, name: str) -> bigquery.Table | None:
        return look_up(self._client, self._reference(name))

    def _reference(self, name: str) -> bigquery.TableReference:
        return bigquery.DatasetReference(self._settings.project, self._settings.dataset).table(
            self._settings.prefix + name
        )

    def _create(self, shape: TableShape) -> None:
        table = bigquery.Table(self._reference(shape.name), schema=list(shape.fields))
        table.time_partitioning = bigquery.TimePartitioning(
            shape.unit, shape.partition, shape.expires_after_ms
        )
        table.clustering_fields = list(shape.cluster) or None
        with _explained(f"creating table {self._settings.prefix}{shape.name}"):
            self._client.create_table(table, exists_ok=True)

    def _create_views(self) -> None:
        for name, sql in views(self._settings).items():
            with _explained(f"creating view {self._settings.prefix}{name}"):
                self._queries.execute(
                    f"CREATE OR REPLACE VIEW {self._settings.table(name)} AS {sql}",
                    (),
                    fresh_job_id("view"),
                )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raises GuaranteeError for a refused change; another run may have made the same one."""
    try:
        with reachable(what):
            yield
    except (BadRequest, Conflict, Forbidden, PreconditionFailed) as error:
        kind = TryAgainLater if isinstance(error, Conflict | PreconditionFailed) else GuaranteeError
        raise kind(
            f"BigQuery refuses {what} ({error.message}). Nothing was read; run again, and see"
            f" {ROLES}"
        ) from error
