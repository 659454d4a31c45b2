"""Does the faults of a schedule to a running job, and mends what each has broken."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Final

from runners.flink.servers import TASK_MANAGER
from runners.processes import ServerProcess
from tests.bigquery_stand_in import BigQueryStandIn
from tests.soak import schedule
from tests.soak.schedule import Fault, Schedule
from tests.soak.sending import Sending
from tests.support.kafka_broker import KafkaBroker
from tests.support.streaming_command import StreamingCommand

LATEST: Final = "--restore=latest"
ADOPT: Final = "--from_tables"

_TRIES: Final = 20
_FOR_EVER: Final = 1 << 60
_CALLS: Final = (
    "AppendRows", "AppendRows.connect", "CreateWriteStream", "FinalizeWriteStream",
    "GetWriteStream", "jobs.insert", "jobs.query", "jobs.get", "jobs.getQueryResults",
    "tables.get", "datasets.get",
)  # fmt: skip
_ANSWERS: Final = ("AppendRows", "CreateWriteStream", "FinalizeWriteStream", "jobs.insert")


class Faults:
    """Every method that is named after a fault of schedule.py does it; `lasts` as in Fault.

    stand_in: the destination, where it is not DuckDB. Zombies go on when `wake_zombies` is called.
    """

    def __init__(
        self,
        plan: Schedule,
        command: StreamingCommand,
        broker: KafkaBroker,
        sending: Sending,
        stand_in: BigQueryStandIn | None,
    ) -> None:
        self._random = random.Random(f"faults {plan.seed}")
        self._command, self._broker, self._sending = command, broker, sending
        self._cluster = command.cluster
        self._here = stand_in is None
        self._away = threading.Event()
        self._zombies: list[ServerProcess] = []
        if stand_in is not None:
            self._plan = stand_in.faults
            for name in _CALLS:
                when = self._is_away
                stand_in.faults.cut(name, times=_FOR_EVER, when=when)

    def do(self, fault: Fault) -> None:
        """Does the fault; the job runs again, or begins again by itself, when this returns.

        Raises AssertionError where it does not.
        """
        self.wake_zombies()
        if fault.settled:
            self._command.wait_for_checkpoints(1)
        doings: dict[str, Callable[[Fault], None]] = {
            schedule.CLIENT: lambda _: self._begin_again(LATEST),
            schedule.RESTART: lambda _: self._begin_again(LATEST),
            schedule.FROM_TABLES: lambda _: self._begin_again(ADOPT),
            schedule.INTERRUPT: lambda _: self._interrupt(),
            schedule.WORKER: lambda _: self._kill_worker(),
            schedule.TASK_MANAGER: lambda _: self._kill_task_manager(),
            schedule.ZOMBIE: lambda _: self._stop_task_manager(),
            schedule.JOB_MANAGER: lambda _: self.restart_job_manager(
                self._random.choice((LATEST, ADOPT))
            ),
            schedule.EVERYTHING: lambda _: self._kill_everything(),
            schedule.BROKER: lambda _: self._restart_broker(),
            schedule.AWAY: self._destination_away,
            schedule.ANSWERS: lambda _: self._lose_answers(),
        }
        doings[fault.kind](fault)

    def wake_zombies(self) -> None:
        """Lets the TaskManagers go on that were stopped and taken for dead."""
        for process in self._zombies:
            process.send(signal.SIGCONT)
        self._zombies.clear()

    def restart_job_manager(self, flag: str) -> None:
        """kill -9, and the job begins again with a flag of `run`: its jobs end with it."""
        self._cluster.kill_job_manager()
        self._command.kill()
        self._cluster.start_job_manager()
        self._start(flag)

    def _is_away(self, _call: object) -> bool:
        return self._away.is_set()

    def _begin_again(self, flag: str) -> None:
        self._command.kill()
        self._start(flag)

    def _interrupt(self) -> None:
        self._command.interrupt()
        self._start(LATEST)

    def _start(self, flag: str) -> None:
        """As a supervisor does: again, where it ends with "try again later".

        So it does while no TaskManager is registered.
        """
        for _ in range(_TRIES):
            try:
                self._command.start(flag)
                return
            except AssertionError:
                self._command.kill()
                if not self._command.log.rstrip().rpartition("\n")[2].startswith("try again later"):
                    raise
        raise AssertionError(f"refused {_TRIES} times:\n{self._command.log[-3000:]}")

    def _kill_worker(self) -> None:
        found: list[int] = []

        def there_is_one() -> bool:
            found[:] = self._cluster.workers()
            return bool(found)

        self._command.wait_for("a worker runs", there_is_one)
        os.kill(self._random.choice(found), signal.SIGKILL)

    def _kill_task_manager(self) -> None:
        self._cluster.kill_task_manager()
        self._cluster.start_task_manager(wait=False)

    def _stop_task_manager(self) -> None:
        for process in self._cluster.running(TASK_MANAGER):
            process.send(signal.SIGSTOP)
            self._zombies.append(process)
        self._cluster.start_task_manager(wait=False)

    def _kill_everything(self) -> None:
        self._command.kill()
        self._cluster.kill_everything()
        self._cluster.start(self._cluster.settings)
        self._start(self._random.choice((LATEST, LATEST, ADOPT)))

    def _restart_broker(self) -> None:
        self._broker.restart(killed=self._random.random() < 0.7)

    def _destination_away(self, fault: Fault) -> None:
        self._away.set()
        try:
            self._sending.wait_until_sent(fault.after + fault.lasts)
        finally:
            self._away.clear()

    def _lose_answers(self) -> None:
        for name in _ANSWERS:
            self._plan.lose_answer(
                name, nth=self._random.randint(1, 5), times=self._random.randint(1, 4)
            )
