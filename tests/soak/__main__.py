"""python -m tests.soak [--seconds=600] [--schedules=N] [--seed=1] [--starts=N]

Plays the schedules of the seeds SEED, SEED + 1 ... on one broker and one Flink cluster, until the
time is over, or so many are done. Exit status 1 at the first that goes wrong; its folder stays.
--starts: instead, starts a job so many times, each time from the savepoint of the one before.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.soak.job import Played, play
from tests.soak.schedule import BIGQUERY, DUCKDB, Schedule, schedule_of
from tests.soak.servers import Servers, running_servers
from tests.soak.starts import start_again_and_again


def main() -> int:
    """Prints one line for each schedule; the exit status."""
    options = _options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="payment-pipeline-soak-"))
    with running_servers(folder) as servers:
        if options.starts:
            return start_again_and_again(options.starts, servers, folder)
        deadline = time.monotonic() + options.seconds
        last = options.seed + options.schedules if options.schedules else sys.maxsize
        for seed in range(options.seed, last):
            if time.monotonic() > deadline and not options.schedules:
                break
            if not _is_right(schedule_of(seed, options.destination), servers, folder):
                return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--schedules", type=int, help="so many, however long it takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--destination", choices=(DUCKDB, BIGQUERY))
    parser.add_argument("--starts", type=int)
    parser.add_argument("--folder", help="holds everything; a new one by default")
    return parser.parse_args()


def _is_right(plan: Schedule, servers: Servers, folder: Path) -> bool:
    place = folder / f"seed-{plan.seed}"
    place.mkdir()
    topic = f"soak-{plan.seed}"
    servers.create_topic(topic, plan.partitions)
    faults = " ".join(map(str, plan.faults))
    began = time.monotonic()
    try:
        played = play(plan, servers, topic, place)
    except Exception as error:
        (place / "error.txt").write_text(traceback.format_exc())
        servers.write_jobs(place / "flink.txt")
        played = Played(0, time.monotonic() - began, [f"{type(error).__name__}: {error}"[-2000:]])
    verdict = "WRONG" if played.wrong else "right"
    print(
        f"seed {plan.seed}  {plan.destination} {plan.partitions} partitions"
        f" x{plan.parallelism}  {faults}  {played.records} records  {played.seconds:.0f} s "
        f" {verdict}",
        flush=True,
    )
    if played.wrong:
        print("\n".join(played.wrong))
        (place / "wrong.txt").write_text("\n".join(played.wrong))
        print(f"kept: {place} (Flink: {servers.cluster.folder}). Once more, this one alone:")
        print(f"  make soak SCHEDULES=1 SEED={plan.seed}", flush=True)
        return False
    shutil.rmtree(place)
    servers.make_whole()
    return True


if __name__ == "__main__":
    sys.exit(main())
