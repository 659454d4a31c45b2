"""DirectRunner: local work, tests, the demo; bounded runs, exactly once."""

from __future__ import annotations

from typing import Final

from runners.profile import Refusal, RunnerProfile

DIRECT: Final = RunnerProfile(
    name="DirectRunner",
    # Beam's own DirectRunner looks for a Prism binary, and downloads one where it can: the
    # guarantee would depend on the user's network.
    beam_runner="FnApiRunner",
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
