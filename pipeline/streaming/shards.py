"""The number of hash ranges of a destination that streaming has written to: it stays as it was."""

from __future__ import annotations

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import ownership_of
from transforms.model.errors import GuaranteeError


def shards_of_ledger(destination: Destination, wanted: int, given: bool) -> int:
    """What the first job has begun with; `wanted` before it.

    given: whether the user has named a number. Raises GuaranteeError where that is another one: an
    id would meet a shard that does not know it.
    """
    runs = destination.runs.read() if destination.tables.exist() else []
    for record in reversed(runs):
        if ownership_of(record) is not None:
            known = int(str(record.settings["shards"]))
            if given and wanted != known:
                raise GuaranteeError(
                    f"--shards={wanted}: the streaming jobs of this destination have {known}. Leave"
                    f" --shards out, or use --shards={known}."
                )
            return known
    return wanted
