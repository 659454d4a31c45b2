"""From the value of --runner to a profile."""

from __future__ import annotations

from typing import Final

from runners.direct import DIRECT
from runners.flink.profile import FLINK
from runners.profile import RunnerProfile, RunnerRefused, UnknownRunner
from runners.spark.profile import SPARK

PROFILES: Final = (DIRECT, FLINK, SPARK)

_REFUSED: Final = {
    "prismrunner": "a stateful bundle that takes longer than about 100 ms is split, and the rest of"
    " the same key runs beside it on a stale copy of the state, so copies of a payment pass as"
    " payments. Use --runner=DirectRunner.",
    "portablerunner": "what runs behind a portable endpoint cannot be known, so no guarantee can be"
    " given. Use --runner=FlinkRunner for a job server of Flink, --runner=SparkRunner for one of"
    " Spark.",
}


def resolve(name: str) -> RunnerProfile:
    """The profile of a runner; upper or lower case makes no difference.

    Raises RunnerRefused with the reason, or UnknownRunner.
    """
    wanted = name.rpartition(".")[2].lower()
    for profile in PROFILES:
        if wanted in (profile.name.lower(), profile.beam_runner.lower()):
            return profile
    if wanted in _REFUSED:
        raise RunnerRefused(f"--runner={name}: {_REFUSED[wanted]}")
    *names, last = (profile.name for profile in PROFILES)
    allowed = f"{', '.join(names)} and {last}"
    raise UnknownRunner(f"--runner={name}: no such runner. Allowed are {allowed}.")
