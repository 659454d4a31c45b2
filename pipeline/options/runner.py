"""The runner of a run: its profile, and the options that it brings."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from runners.profile import RunnerMisused, RunnerProfile, RunnerRefused
from runners.registry import PROFILES, resolve
from transforms.model.errors import GuaranteeError, UsageError


class RunnerOptions(PipelineOptions):
    """Options of the runner itself.

    Beam finds them here too, so it does not take them for misspelt ones.
    """

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        for profile in PROFILES:
            for flag in profile.flags:
                parser.add_argument(
                    f"--{flag.name}",
                    nargs="?",
                    const="true",
                    metavar="VALUE",
                    help=f"{profile.name}: {flag.help}",
                )


def runner_of(given: Namespace) -> RunnerProfile:
    """The profile of --runner, once all options are checked that it, or streaming, depends on.

    given: the parsed arguments of `run`. Raises UsageError or GuaranteeError.
    """
    options = vars(given)
    try:
        profile = resolve(given.runner)
        _check_flags_of_others(profile, options)
        profile.check(options)
    except RunnerMisused as error:
        raise UsageError(str(error)) from error
    except RunnerRefused as refused:
        raise GuaranteeError(str(refused)) from refused
    if given.streaming and given.dedup_layout == "per_key":
        raise GuaranteeError(
            "--dedup_layout=per_key with --streaming: the offsets, write streams and epochs of"
            " streaming live in the state of a shard, which per_key does not have. Use"
            " --dedup_layout=sharded."
        )
    if profile.bundle_per_key and given.dedup_layout == "per_key":
        raise GuaranteeError(
            f"--dedup_layout=per_key with --runner={profile.name}: this runner makes a bundle for"
            " each key, so a run of 10,000 ids takes minutes. Use --dedup_layout=sharded."
        )
    if str(given.destination).startswith("duckdb:") and not profile.in_one_process(options):
        raise GuaranteeError(
            f"--destination={given.destination} with --environment_type={given.environment_type}"
            f" and --experiments={given.experiments}: only one process can open a DuckDB file, and"
            " the workers would be others. Use --environment_type=LOOPBACK without the experiment"
            " use_loopback_process_worker, or a destination in BigQuery."
        )
    return profile


def _check_flags_of_others(chosen: RunnerProfile, options: dict[str, Any]) -> None:
    for profile in PROFILES:
        for flag in profile.flags if profile is not chosen else ():
            if options.get(flag.name) is not None:
                raise RunnerMisused(
                    f"--{flag.name}={options[flag.name]} with --runner={chosen.name}: only"
                    f" --runner={profile.name} has this option. Leave it out."
                )
