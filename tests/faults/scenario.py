"""Messages in a topic, runs as processes, and an oracle that knows neither the pipeline nor its
tables.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from pipeline.cli import WRONG_USAGE
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import COPY, FUTURE, INVALID, PAYMENT, GeneratedMessage
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import ROOT

ROW_TABLES = ("payment_transactions", "duplicate_transactions", "rejected_records")


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

    def start(self, *module: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", *(module or ("pipeline",)), *self.run_arguments]
        command = ending_with_this_process(command)
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *module: str) -> int:
        """The exit status; negative for a signal."""
        process = self.start(*module)
        self.output = process.communicate(timeout=120)[0]
        return process.returncode

    def check(self) -> dict[str, str]:
        """name -> status, as `check` prints them; the exit status must agree. Nothing for a
        destination that no run has written to.
        """
        arguments = ["check", *self.destination, "--max_duplicate_rate=1", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode == WRONG_USAGE and "no run has written here" in done.stderr:
            return {}
        self.output = done.stdout + done.stderr
        results = {row["name"]: row["status"] for row in json.loads(done.stdout)}
        assert done.returncode == int("FAILED" in results.values()), done.stdout + done.stderr
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
