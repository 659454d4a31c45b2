"""What the chain says of the streaming jobs of a destination: their ids, and how many shards.

The number of hash ranges stays as it was when the first one began.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.destinations.contract.ownership import BEGIN, ownership_of
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.model.errors import GuaranteeError


def jobs_of(runs: Sequence[RunRecord]) -> list[str]:
    """The ids of all streaming jobs of this chain that have begun, oldest first."""
    found = [ownership_of(record) for record in runs]
    return list(dict.fromkeys(each.job_id for each in found if each and each.kind == BEGIN))


def shards_of_ledger(runs: Sequence[RunRecord], wanted: int, given: bool) -> int:
    """What the first job has begun with; `wanted` before it.

    runs: the chain. given: whether the user has named a number. Raises GuaranteeError where that is
    another one: an id would meet a shard that does not know it.
    """
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
