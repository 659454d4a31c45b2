"""What a run record remembers of the configuration, and what a later run may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.options.config import RunConfig
from pipeline.options.quantities import format_duration
from pipeline.run.plan import PlanLimits
from pipeline.run.schema_evolution import check_evolution
from transforms.decode.decoder import DECODER_VERSION
from transforms.destinations.contract.ownership import is_binding
from transforms.destinations.contract.run_ledger import ABORTED, RunRecord
from transforms.model.errors import GuaranteeError


def settings_of(config: RunConfig) -> dict[str, object]:
    """What a run record keeps of the configuration; the keys are part of the ledger's format."""
    return {
        "topics": sorted(config.topics),
        "schema": config.schema.to_json(),
        "dedup_key": config.schema.dedup_key,
        "event_time_field": config.schema.event_time_field,
        "amount_column": config.schema.amount_column,
        "currency_column": config.schema.currency_column,
        "dedup_horizon_us": config.dedup_horizon_us,
        "extra_retention_us": config.extra_retention_us,
        "max_future_skew_us": config.max_future_skew_us,
        "decoder_version": DECODER_VERSION,
        "shards": config.shards,
        "dedup_layout": config.dedup_layout,
        "epoch_units": config.schema.epoch_units(),
    }


def settings_in_force(runs: Sequence[RunRecord]) -> Mapping[str, Any] | None:
    """The settings of the last run of which anything is, or may become, visible.

    None where there is no such run yet, see is_binding.
    """
    return next(
        (run.settings for run in reversed(runs) if run.status != ABORTED and is_binding(run)), None
    )


def check_settings(before: Mapping[str, Any] | None, config: RunConfig) -> None:
    """Refuses a configuration that gives one id two meanings, or forgets ids that are promised.

    before: the settings in force, None: there are none. Raises GuaranteeError naming the flag and
    the fix. Shards and layout are free for bounded runs: their state is loaded from the tables.
    """
    if before is None:
        return
    for flag, now in (
        ("dedup_key", config.schema.dedup_key),
        ("event_time_field", config.schema.event_time_field),
    ):
        if before[flag] != now:
            raise GuaranteeError(
                f"--{flag}={now}, but this destination was filled with --{flag}={before[flag]}: the"
                " same payment could get a second row."
                f" Use --{flag}={before[flag]}, or a new destination."
            )
    if config.dedup_horizon_us < before["dedup_horizon_us"]:
        known = format_duration(before["dedup_horizon_us"])
        raise GuaranteeError(
            f"--dedup_horizon={format_duration(config.dedup_horizon_us)}, but this destination was"
            f" filled with --dedup_horizon={known}: the horizon may only grow. Use"
            f" --dedup_horizon={known} or more."
        )
    check_evolution(before["schema"], config.schema)
    for name in ("amount_column", "currency_column"):
        now_column = getattr(config.schema, name)
        if before[name] != now_column:
            flag = f"--{name.removesuffix('_column')}_field"
            given = (
                f"{flag} stands for {now_column}" if now_column else f"{flag} stands for no field"
            )
            fix = f"Use {flag}={before[name]}" if before[name] else f"Leave {flag} out"
            raise GuaranteeError(
                f"{given}, but this destination's control totals were made with"
                f" {before[name] or 'none'}. {fix} (and the --schema that it was filled with), or a"
                " new destination."
            )


@dataclass(frozen=True)
class RunSettings:
    """What the steps need of the configuration. Times are in microseconds.

    recorded: what the run record keeps of it, see settings_of. max_rejected_rate: 1 for no limit.
    command: with which a person goes on after a refusal.
    """

    limits: PlanLimits
    extra_retention_us: int
    shards: int
    recorded: dict[str, Any]
    max_rejected_rate: float
    command: str


def run_settings(config: RunConfig) -> RunSettings:
    """What the steps need of the configuration, and what a run record keeps of it."""
    limits = PlanLimits(
        config.dedup_horizon_us,
        config.idle_timeout_us,
        config.max_records_per_run,
        config.on_data_loss == "accept",
    )
    return RunSettings(
        limits,
        config.extra_retention_us,
        config.shards,
        settings_of(config),
        config.max_rejected_rate,
        "run" if config.streaming is None else "run --streaming --from_tables",
    )
