"""The last line behind the watermark: what a shard may have forgotten is late, whatever watermark
its split judged by.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.model.elements import ShardBatch
from transforms.model.rejected import LATE, rejected_rows


def reject_behind_expiry(batch: ShardBatch, behind: NDArray[np.bool_]) -> ShardBatch:
    """Moves the payments of the mask `behind` to `rejected`. The message's bytes are not carried
    this far: its decoded row is the detail.
    """
    moved = batch.payments.filter(pa.array(behind))
    details = [
        "behind the expired state of its shard; decoded: "
        + json.dumps(row, default=str, sort_keys=True)
        for row in moved.drop_columns(["fingerprint"]).to_pylist()
    ]
    rejected = rejected_rows(moved, [LATE] * len(details), details, [None] * len(details))
    with_prints = pa.RecordBatch.from_arrays(
        [moved.column("fingerprint"), *rejected.columns], schema=batch.rejected.schema
    )
    return ShardBatch(
        batch.payments.filter(pa.array(~behind)), pa.concat_batches([batch.rejected, with_prints])
    )
