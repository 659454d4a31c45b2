"""A parsed statement of GoogleSQL as DuckDB's SQL: names of tables, views, parameters, and the
rewrites.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlglot import exp

from tests.bigquery_stand_in.errors import invalid_query
from tests.bigquery_stand_in.rest.parameters import Parameter
from tests.bigquery_stand_in.sql.googlesql import parse, referenced_tables, resolve
from tests.bigquery_stand_in.sql.pruning import Scan, scan_of
from tests.bigquery_stand_in.sql.refusals import refuse
from tests.bigquery_stand_in.sql.rewrites import rewrite
from tests.bigquery_stand_in.sql.time_travel import Moments
from tests.bigquery_stand_in.sql.unnest import rewrite_unnest
from tests.bigquery_stand_in.warehouse import Table, Warehouse

_MAX_VIEW_DEPTH = 16


@dataclass(frozen=True)
class Transpiled:
    """sql: for DuckDB; scans: what is read, the tables behind views included; parameters: the
    names that the text uses.
    """

    sql: str
    scans: list[Scan]
    columns: frozenset[str] | None
    parameters: frozenset[str]


class Transpiler:
    """For one statement with its parameters and default dataset."""

    def __init__(
        self,
        warehouse: Warehouse,
        default_dataset: str | None,
        parameters: Iterable[Parameter] = (),
    ) -> None:
        self._warehouse = warehouse
        self._default_dataset = default_dataset
        self._moments = Moments(warehouse)
        self._mentioned: list[tuple[exp.Table, Table]] = []
        self._parameters = {parameter.name.lower(): parameter for parameter in parameters}

    def transpile(self, statement: exp.Expression) -> Transpiled:
        """Raises RestFailure for unknown tables and parameters."""
        tree = statement.copy()
        self._mentioned = []
        tables = self._bind_tables(tree, self._default_dataset, 0)
        refuse(statement, [field for table in tables for field in table.fields])
        columns = _named_columns(tree)
        rewrite_unnest(
            tree,
            {name: parameter.field for name, parameter in self._parameters.items()},
            [field for table in tables for field in table.fields],
        )
        _name_columns(tree)
        tree = rewrite(tree, self._warehouse.now())
        used = self._bind_parameters(tree)
        scans = [scan_of(node, table) for node, table in self._mentioned]
        return Transpiled(tree.sql(dialect="duckdb"), scans, columns, used)

    def table(self, node: exp.Table) -> Table:
        """The table that the statement changes."""
        return self._warehouse.table(*resolve(node, self._warehouse.project, self._default_dataset))

    def _bind_tables(
        self, tree: exp.Expression, default_dataset: str | None, depth: int
    ) -> list[Table]:
        if depth > _MAX_VIEW_DEPTH:
            raise invalid_query("views are nested too deeply")
        found: list[Table] = []
        for node in referenced_tables(tree):
            dataset, name = resolve(node, self._warehouse.project, default_dataset)
            table = self._warehouse.table(dataset, name)
            rows = self._moments.bind(node, table)
            if table.view_query is None:
                found.append(table)
                self._mentioned.append((node, table))
                there = exp.to_table(rows, dialect="duckdb")
                node.set("catalog", None)
                node.set("db", there.args["db"])
                node.set("this", there.this)
                if not node.alias and isinstance(node.parent, exp.From | exp.Join):
                    node.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
            else:
                # Read where it is used, not as DuckDB's view, so that CURRENT_DATE() in it follows
                # the clock.
                query = parse(table.view_query).copy()
                found += self._bind_tables(query, dataset, depth + 1)
                node.replace(
                    exp.Subquery(
                        this=query,
                        alias=exp.TableAlias(
                            this=exp.to_identifier(node.alias or name, quoted=True)
                        ),
                    )
                )
        return found

    def _bind_parameters(self, tree: exp.Expression) -> frozenset[str]:
        used = set()
        for node in list(tree.find_all(exp.Parameter)):
            parameter = self._parameters.get(node.name.lower())
            if parameter is None:
                raise invalid_query(f"Query parameter '{node.name}' not found")
            used.add(parameter.name)
            typed = exp.Cast(
                this=exp.Parameter(this=exp.var(parameter.name)),
                to=exp.DataType.build(parameter.sql_type, dialect="duckdb"),
            )
            node.replace(typed)
        return frozenset(used)


def _named_columns(tree: exp.Expression) -> frozenset[str] | None:
    """Lower-case names that occur in the statement; None when there is a star, which reads every
    column.
    """
    for star in tree.find_all(exp.Star):
        if not isinstance(star.parent, exp.Count):
            return None
    return frozenset(node.name.lower() for node in tree.find_all(exp.Identifier))


def _name_columns(tree: exp.Expression) -> None:
    """Columns of the result without a name are f0_, f1_, ... in BigQuery."""
    if not isinstance(tree, exp.Select):
        return
    named = []
    for position, column in enumerate(tree.expressions):
        plain = isinstance(column, exp.Column | exp.Star | exp.Alias | exp.Dot)
        named.append(column if plain else exp.alias_(column.copy(), f"f{position}_"))
    tree.set("expressions", named)
