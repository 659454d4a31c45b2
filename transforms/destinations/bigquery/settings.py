"""Which BigQuery dataset is the destination, and what may be done there.

Everything that a worker needs to open the destination, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from transforms.model.errors import UsageError

IF_NEEDED: Final = "if_needed"
NEVER: Final = "never"

_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", re.ASCII)
"""Six to 30 lower-case letters, digits and hyphens; older projects have a domain in front.

See https://cloud.google.com/resource-manager/docs/creating-managing-projects.
"""

_DATASET: Final = re.compile(r"\w{1,1024}", re.ASCII)
_PREFIX: Final = re.compile(r"\w{0,100}", re.ASCII)


@dataclass(frozen=True)
class BigQuerySettings:
    """The settings behind the flags of the destination.

    location: of jobs and of a dataset's streams, None for BigQuery's own choice. prefix: in front
    of every table's name. create_tables: IF_NEEDED or NEVER. update_schema: whether new nullable
    columns are added to existing tables. max_bytes_billed: per query. api_endpoint: URL,
    storage_endpoint: HOST:PORT; None for Google's. impersonate: a service account, or several
    separated by commas, the last one being the one that acts.
    """

    project: str
    dataset: str
    prefix: str = ""
    location: str | None = None
    create_tables: str = IF_NEEDED
    update_schema: bool = False
    max_bytes_billed: int = 1 << 40
    api_endpoint: str | None = None
    storage_endpoint: str | None = None
    impersonate: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError naming the flag."""
        if not _PROJECT.fullmatch(self.project) or not _DATASET.fullmatch(self.dataset):
            raise UsageError(
                f"--destination=bigquery:{self.project}.{self.dataset}: must be"
                " bigquery:PROJECT.DATASET, a project id and a dataset of letters,"
                " digits and underscores."
            )
        if not _PREFIX.fullmatch(self.prefix):
            raise UsageError(
                f"--table_prefix={self.prefix}: up to 100 letters, digits and underscores."
            )
        if self.create_tables not in (IF_NEEDED, NEVER):
            raise UsageError(
                f"--create_tables={self.create_tables}: allowed are {IF_NEEDED} and {NEVER}."
            )
        if (self.api_endpoint is None) != (self.storage_endpoint is None):
            raise UsageError(
                "--bigquery_api_endpoint and --bigquery_storage_endpoint lead to one service: give"
                " both, or none."
            )
        if self.api_endpoint is not None:
            _check_api_endpoint(self.api_endpoint)
            if self.is_local != is_loopback(self.api_endpoint):
                raise UsageError(
                    f"--bigquery_api_endpoint={self.api_endpoint} and"
                    f" --bigquery_storage_endpoint={self.storage_endpoint}: one is on this machine,"
                    " the other is not. Credentials are sent to both or to none."
                )

    @property
    def is_local(self) -> bool:
        """A stand-in or emulator on this machine: plaintext, and no credentials are sent."""
        return self.storage_endpoint is not None and is_loopback(f"//{self.storage_endpoint}")

    @property
    def url(self) -> str:
        """The value of `--destination` that names the dataset."""
        return f"bigquery:{self.project}.{self.dataset}"

    def table(self, name: str) -> str:
        """A table's full name for SQL, quoted."""
        return f"`{self.project}.{self.dataset}.{self.prefix}{name}`"

    def table_path(self, name: str) -> str:
        """A table's resource name for the Storage Write API."""
        return f"projects/{self.project}/datasets/{self.dataset}/tables/{self.prefix}{name}"


def parse_target(url: str) -> tuple[str, str]:
    """(project, dataset) of bigquery:PROJECT.DATASET. Raises UsageError."""
    project, dot, dataset = url.removeprefix("bigquery:").rpartition(".")
    if not dot or not project:
        raise UsageError(f"--destination={url}: must be bigquery:PROJECT.DATASET.")
    return project, dataset


def is_loopback(url: str) -> bool:
    """Whether a URL's host is an address of this machine alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_api_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"--bigquery_api_endpoint={url}: plaintext is allowed only to this machine (127.0.0.1,"
            " ::1, localhost), else credentials and payments"
            " could be read on the way. Use https."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--bigquery_api_endpoint={url}: must be a URL such as https://bigquery.googleapis.com"
            " or http://127.0.0.1:9050."
        )
