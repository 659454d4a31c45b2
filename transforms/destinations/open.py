"""Opens the destination that `--destination` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transforms.destinations.contract.destination import Destination
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import UsageError


def open_destination(url: str, must_exist: bool = False, **bigquery: Any) -> Destination:
    """The destination of `--destination`; use it as a context manager.

    Raises UsageError naming what is allowed.

    must_exist: for commands that only look, so that a wrong name is an error, not a new and empty
    destination. bigquery: fields of BigQuerySettings beside project and dataset.
    """
    kind, _, rest = url.partition(":")
    if kind == "bigquery":
        # Google's clients take a second to import.
        from transforms.destinations.bigquery.destination import BigQueryDestination
        from transforms.destinations.bigquery.settings import BigQuerySettings, parse_target

        project, dataset = parse_target(url)
        return BigQueryDestination(BigQuerySettings(project, dataset, **bigquery))
    if kind != "duckdb" or not rest:
        raise UsageError(
            f"--destination={url}: allowed are duckdb:PATH, a DuckDB file on this machine, and"
            " bigquery:PROJECT.DATASET."
        )
    path = Path(rest)
    if must_exist and not path.is_file():
        raise UsageError(
            f"--destination={url}: there is no such file, so no run has written here. Give the path"
            " that run has written to."
        )
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"--destination={url}: is a folder. Give the path of a file in it.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"--destination={url}: {folder} is not a folder. Give the path of a file in a folder."
        )
    if not folder.is_dir():
        raise UsageError(
            f"--destination={url}: its folder does not exist. Create it (mkdir -p {folder}), or"
            " correct the path."
        )
    return DuckDBDestination(rest)
