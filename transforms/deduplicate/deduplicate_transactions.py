"""DeduplicateTransactions: accepts the first sighting of each id, in two layouts of the state."""

from __future__ import annotations

from typing import Final

import apache_beam as beam

from transforms.deduplicate.per_key import DeduplicatePerKey, SplitByKey
from transforms.deduplicate.settings import DedupSettings
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.model.elements import ShardBatch, ShardOutcome

LAYOUTS: Final = ("sharded", "per_key")


class DeduplicateTransactions(beam.PTransform):
    """PCollection[(shard, ShardBatch)] -> PCollection[ShardOutcome].

    A record that is not late is accepted exactly when its id is not in the state. Event-time timers
    remove ids from the state (see transforms/model/buckets.py).
    """

    def __init__(self, layout: str, settings: DedupSettings) -> None:
        super().__init__()
        self._layout = layout
        self._settings = settings

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        if self._layout == "per_key":
            return (
                batches
                | "SplitByKey"
                >> beam.ParDo(SplitByKey()).with_output_types(tuple[str, tuple[int, ShardBatch]])
                | "PerKey"
                >> beam.ParDo(DeduplicatePerKey(self._settings)).with_output_types(ShardOutcome)
            )
        return batches | "Sharded" >> beam.ParDo(
            DeduplicateSharded(self._settings)
        ).with_output_types(ShardOutcome)
