"""The options that say where the tables are, the same for every command."""

from __future__ import annotations

from typing import Any, Final

from pipeline.options.arguments import required
from pipeline.options.quantities import parse_size
from transforms.destinations.bigquery.settings import IF_NEEDED
from transforms.destinations.contract.destination import Destination
from transforms.destinations.open import open_destination
from transforms.model.errors import UsageError

IMPERSONATION_HELP: Final = "BigQuery: act as this service account"

_DEFAULTS: Final[dict[str, Any]] = {
    "table_prefix": "",
    "location": None,
    "create_tables": IF_NEEDED,
    "update_schema": False,
    "maximum_bytes_billed": "1024GiB",
    "bigquery_api_endpoint": None,
    "bigquery_storage_endpoint": None,
}


def add_destination_arguments(parser: Any, writes: bool = True) -> None:
    """Declares --destination and the options of BigQuery.

    writes: whether the command writes; one that only looks changes no table.
    --impersonate_service_account is Beam's; a command without Beam calls add_impersonation.
    """
    add = parser.add_argument
    add(
        "--destination",
        metavar="URL",
        help="where the tables are: duckdb:PATH or bigquery:PROJECT.DATASET. Required.",
    )
    add(
        "--table_prefix",
        default=_DEFAULTS["table_prefix"],
        metavar="TEXT",
        help="BigQuery: in front of every table's name",
    )
    add(
        "--location",
        metavar="NAME",
        help="BigQuery: where jobs run, such as EU; left out, BigQuery finds out",
    )
    if writes:
        add(
            "--create_tables",
            default=_DEFAULTS["create_tables"],
            metavar="if_needed|never",
            help="BigQuery: create missing tables, or refuse to run without them",
        )
        add(
            "--update_schema",
            action="store_true",
            help="BigQuery: add new nullable columns to existing tables",
        )
    add(
        "--maximum_bytes_billed",
        default=_DEFAULTS["maximum_bytes_billed"],
        metavar="SIZE",
        help="BigQuery: what one query may read",
    )
    add(
        "--bigquery_api_endpoint",
        metavar="URL",
        help="BigQuery: another address; http only on this machine, then without credentials",
    )
    add(
        "--bigquery_storage_endpoint",
        metavar="HOST:PORT",
        help="BigQuery: another address of the Storage Write API",
    )


def add_impersonation(parser: Any) -> None:
    """Declares --impersonate_service_account under the name that Beam gives it."""
    parser.add_argument("--impersonate_service_account", metavar="ACCOUNT", help=IMPERSONATION_HELP)


def destination_options(given: Any) -> dict[str, Any]:
    """The arguments of open_destination beside the URL.

    Raises UsageError for an option that this kind of destination does not have.
    """
    values = {**_DEFAULTS, **vars(given)}
    if not required(given, "destination", "duckdb:payments.duckdb").startswith("bigquery:"):
        for flag, default in _DEFAULTS.items():
            if values[flag] != default:
                raise UsageError(
                    f"--{flag}={values[flag]}: only for"
                    " --destination=bigquery:PROJECT.DATASET. Leave it out."
                )
        return {}
    return {
        "prefix": values["table_prefix"],
        "location": values["location"],
        "create_tables": values["create_tables"],
        "update_schema": values["update_schema"],
        "max_bytes_billed": parse_size("maximum_bytes_billed", values["maximum_bytes_billed"]),
        "api_endpoint": values["bigquery_api_endpoint"],
        "storage_endpoint": values["bigquery_storage_endpoint"],
        "impersonate": values["impersonate_service_account"],
    }


def destination_of(given: Any, must_exist: bool = False) -> Destination:
    """The destination that the arguments name, not yet open. Raises UsageError naming the flag."""
    options = destination_options(given)
    return open_destination(given.destination, must_exist, **options)
