"""What is in the tables, as a whole: live_ids.py, visible_rows.py and present_rows.py together."""

from __future__ import annotations

from typing import Protocol

from transforms.destinations.contract.live_ids import LiveIds
from transforms.destinations.contract.present_rows import RowsAbove
from transforms.destinations.contract.visible_rows import VisibleRows


class StoredRows(LiveIds, VisibleRows, RowsAbove, Protocol):
    """The questions of a cold start, of a repair, and of a shard's recovery and adopt.

    Each answer is of one moment, and holds every row that was visible before the call. None of them
    changes anything.
    """
