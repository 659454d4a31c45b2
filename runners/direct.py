"""DirectRunner: local work, tests, the demo; bounded runs, exactly once."""

from __future__ import annotations

from typing import Final

from apache_beam.options.pipeline_options import PipelineOptions

from runners.profile import Build, Progress, Refusal, RunnerProfile, run_to_the_end


def run_without_cache(build: Build, options: PipelineOptions, progress: Progress) -> None:
    """Runs as Beam does, but for its cache of state cells, which has a fixed size here.

    A shard keeps what it needs of its cells itself. To weigh a cell, Beam walks through the globals
    of all modules: a tenth of the CPU of a small run.
    """
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    worker_handlers.STATE_CACHE_SIZE_MB = 0
    run_to_the_end(build, options, progress)


DIRECT: Final = RunnerProfile(
    name="DirectRunner",
    # Beam's own DirectRunner looks for a Prism binary, and downloads one where it can: the
    # guarantee would depend on the user's network.
    beam_runner="FnApiRunner",
    run=run_without_cache,
    refusals=(
        Refusal(
            "streaming",
            None,
            "this runner fires event-time timers before the watermark reaches them, so ids would"
            " expire too early. Use --runner=FlinkRunner, or leave --streaming out: a bounded run"
            " reads to the end of the topics, and can be repeated as often as wanted.",
        ),
        Refusal(
            "direct_running_mode",
            "multi_processing",
            "its workers would be several processes, and only one process can open a DuckDB file."
            " Leave the option out.",
        ),
        Refusal(
            "direct_running_mode",
            "multi_threading",
            "its workers would share one interpreter lock, so there is nothing to gain, and no test"
            " proves it. Leave the option out.",
        ),
    ),
)
