"""Messages in a topic, runs as processes, and an oracle that knows neither the pipeline nor its
tables.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import duckdb

from pipeline.cli import WRONG_USAGE
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import COPY, FUTURE, INVALID, PAYMENT, GeneratedMessage
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.forked_command import ForkedCommand

ROW_TABLES = ("payment_transactions", "duplicate_transactions", "rejected_records")


class Running:
    """A command. errors: where its standard error goes, if not with its output."""

    def __init__(
        self, module: str, arguments: Sequence[str], errors: BinaryIO | None = None
    ) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 # until `ended`
        self._command = ForkedCommand(module, arguments, self._printed, errors)

    @property
    def pid(self) -> int:
        return self._command.pid

    def ended(self) -> tuple[str, int]:
        """Waits; what it has printed, and its exit status, negative for a signal."""
        with self._printed as printed:
            status = self._command.wait(120)
            printed.seek(0)
            return printed.read().decode(), status


@dataclass
class Scenario:
    """A topic, what was sent to it, and a destination: a DuckDB file, or BigQuery's stand-in where
    there is one.
    """

    servers: str
    topic: str
    database: Path
    sent: list[GeneratedMessage] = field(default_factory=list)
    options: tuple[str, ...] = ()
    stand_in: BigQueryStandIn | None = None

    def send(self, messages: Sequence[GeneratedMessage]) -> None:
        with KafkaSender({"bootstrap.servers": self.servers}) as sender:
            sender.send(self.topic, messages)
        self.sent += messages

    @property
    def run_arguments(self) -> list[str]:
        return [
            "run",
            f"--bootstrap_servers={self.servers}",
            f"--topic={self.topic}",
            *self.destination,
            "--shards=4",
            *self.options,
        ]

    @property
    def destination(self) -> list[str]:
        if self.stand_in is None:
            return [f"--destination=duckdb:{self.database}"]
        return [
            f"--destination=bigquery:{self.stand_in.project}.{self.stand_in.dataset}",
            f"--bigquery_api_endpoint={self.stand_in.rest_endpoint}",
            f"--bigquery_storage_endpoint={self.stand_in.storage_endpoint}",
        ]

    def start(self, module: str = "pipeline", *before: str) -> "Running":
        """`run`; module: another program than the pipeline, with arguments of its own before."""
        return Running(module, [*before, *self.run_arguments])

    def run(self, *module: str) -> int:
        """The exit status; negative for a signal."""
        self.output, status = self.start(*module).ended()
        return status

    def check(self) -> dict[str, str]:
        """name -> status, as `check` prints them; the exit status must agree. Nothing for a
        destination that no run has written to.
        """
        arguments = ["check", *self.destination, "--max_duplicate_rate=1", "--json"]
        with tempfile.TemporaryFile() as errors:
            printed, status = Running("pipeline", arguments, errors).ended()
            errors.seek(0)
            complaints = errors.read().decode()
        if status == WRONG_USAGE and "no run has written here" in complaints:
            return {}
        self.output = printed + complaints
        results = {row["name"]: row["status"] for row in json.loads(printed)}
        assert status == int("FAILED" in results.values()), self.output
        return results

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        coordinates = " UNION ALL ".join(
            f"SELECT kafka_topic, kafka_partition, kafka_offset FROM {table}"
            for table in ROW_TABLES
        )
        return {
            "payments": self.query(
                "SELECT transaction_id, amount FROM payment_transactions ORDER BY ALL"
            ),
            "duplicates": self.query(
                "SELECT transaction_id, amount FROM duplicate_transactions ORDER BY ALL"
            ),
            "rejected": self.query("SELECT reason, payload FROM rejected_records ORDER BY ALL"),
            "coordinates": self.query(f"{coordinates} ORDER BY ALL"),
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows by DuckDB's SQL, past everything of the pipeline's."""
        if self.stand_in is not None:
            return self.stand_in.sql(sql)
        with duckdb.connect(str(self.database)) as connection:
            return connection.sql(sql).fetchall()

    def agrees_with_the_oracle(self) -> None:
        """Each id once, each further copy once, each broken or future message once, with its own
        bytes.
        """
        tables = self.tables()
        good = [message for message in self.sent if message.kind in (PAYMENT, COPY)]
        ids = Counter(message.transaction_id for message in good)
        amounts = {message.transaction_id: message.amount for message in good}
        assert tables["payments"] == sorted(
            (transaction_id, amounts[transaction_id]) for transaction_id in ids
        )
        assert Counter(transaction_id for transaction_id, _ in tables["duplicates"]) == Counter(
            {transaction_id: count - 1 for transaction_id, count in ids.items() if count > 1}
        )
        bad = [message for message in self.sent if message.kind in (INVALID, FUTURE)]
        assert Counter(payload for _, payload in tables["rejected"]) == Counter(
            message.value for message in bad
        )
        future = {message.value for message in self.sent if message.kind == FUTURE}
        assert all(
            (reason == "future_event_time") == (payload in future)
            for reason, payload in tables["rejected"]
        )
        assert len(set(tables["coordinates"])) == len(tables["coordinates"]) == len(self.sent)

    def holds(self) -> None:
        """`check` and the oracle agree that nothing is lost, doubled or half visible."""
        assert set(self.check().values()) == {"passed"}, self.check()
        self.agrees_with_the_oracle()
