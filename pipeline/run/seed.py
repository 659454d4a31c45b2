"""The seed of a destination: named by the first run, carried on by its records, asked while needed.

transforms/destinations/contract/seed.py says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.options.config import RunConfig
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import RunRecord, last_committed
from transforms.destinations.contract.seed import Seed, seed_of
from transforms.model.buckets import first_live_time
from transforms.model.errors import GuaranteeError
from transforms.model.tables import EARLIEST_US


def first_seed(
    config: RunConfig, destination: Destination, watermark_us: int | None, now_us: int
) -> Seed | None:
    """What --seed_ids is now; None where it is not given.

    watermark_us: what the first run judges by; ids that it has expired are no part of it. Raises
    GuaranteeError where the table cannot be used.
    """
    if config.seed is None:
        return None
    since = _oldest(watermark_us, config.extra_retention_us)
    return destination.seeds.take(config.seed, since, now_us + config.max_future_skew_us)


def check_seed(
    config: RunConfig,
    destination: Destination,
    runs: Sequence[RunRecord],
    lowest_watermark_us: int | None,
) -> None:
    """Raises GuaranteeError where --seed_ids is another one than that of the first run, or it is
    needed and cannot be read.

    runs: the chain, or its tail. lowest_watermark_us: the bound of the cold start. Whether its rows
    are still those of the first run is looked at where they are loaded.
    """
    seed = seed_of(last_committed(runs))
    if config.seed is not None and (seed is None or seed.of_table() != config.seed):
        before = "began without one" if seed is None else f"began with {_flags(seed)}"
        raise GuaranteeError(
            f"--seed_ids={config.seed.table}: this destination {before}, and what counts as paid"
            " cannot change: payments were judged by it. Leave the flags out, or use a new"
            " destination."
        )
    if seed is not None and seed.reaches(_oldest(lowest_watermark_us, config.extra_retention_us)):
        problem = destination.seeds.problem(seed)
        if problem is not None:
            raise GuaranteeError(problem)


def _oldest(watermark_us: int | None, extra_retention_us: int) -> int:
    if watermark_us is None:
        return EARLIEST_US
    return max(EARLIEST_US, first_live_time(watermark_us, extra_retention_us))


def _flags(seed: Seed) -> str:
    return (
        f"--seed_ids={seed.table} --seed_key={seed.key_column}"
        f" --seed_event_time={seed.event_time_column}"
    )
