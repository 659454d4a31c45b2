"""A real Kafka broker for tests: one node, KRaft, on a free port of 127.0.0.1, in a process group
of its own.
"""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runners.java import java_command
from runners.maven import jars_of
from tests.support.child_process import ending_with_this_process

ROOT = Path(__file__).parents[2]

USER, PASSWORD = "pipeline", "right"

_START_SECONDS = 60


def kafka_jars() -> Path:
    """The folder with the broker's jars. Raises Unavailable without Java or Maven."""
    java_command()
    return jars_of(Path(__file__).with_name("kafka.pom.xml"), ending_with_this_process)


class KafkaBroker:
    """Has a plain listener and one with SASL/PLAIN (user and password above). Its ports belong to
    it until `close`, also while it is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._jars = kafka_jars()
        self._folder = folder
        self._reserved = [_reserved_port() for _ in range(3)]
        self._port, self._sasl_port, self._controller_port = (
            reserved.getsockname()[1] for reserved in self._reserved
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        folder.mkdir(parents=True)
        (folder / "server.properties").write_text(self._properties())
        self._java(
            "kafka.tools.StorageTool",
            "format",
            "-t",
            str(uuid.uuid4()),
            "-c",
            str(folder / "server.properties"),
        )

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def sasl_bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._sasl_port}"

    def start(self) -> None:
        self._starts += 1
        log = self._folder / f"server-{self._starts}.log"
        flags = [
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Djava.io.tmpdir={self._folder}",
        ]
        command = [
            "java",
            *flags,
            "-cp",
            f"{self._jars}/*",
            "kafka.Kafka",
            str(self._folder / "server.properties"),
        ]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ending_with_this_process(command),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while "Kafka Server started" not in log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(
                    f"the broker did not start:\n{log.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to the whole group; nothing if it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def restart(self, killed: bool = False) -> None:
        """Ends the broker, by SIGKILL or as an operator does, and starts it in the same folder."""
        if not killed and self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(_START_SECONDS)
        self.kill()
        self.start()

    def close(self) -> None:
        """Kills the broker and gives its ports back."""
        self.kill()
        for reserved in self._reserved:
            reserved.close()

    def _java(self, *arguments: str) -> None:
        done = subprocess.run(
            ["java", "-cp", f"{self._jars}/*", *arguments], capture_output=True, timeout=120
        )
        if done.returncode:
            raise RuntimeError(
                done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
            )

    def _properties(self) -> str:
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        jaas = f'{plain} required user_{USER}="{PASSWORD}";'
        plaintext, secure = (f"127.0.0.1:{port}" for port in (self._port, self._sasl_port))
        controller = f"127.0.0.1:{self._controller_port}"
        return f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{plaintext},SECURE://{secure},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{plaintext},SECURE://{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config={jaas}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={self._folder}/data
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=500
log.retention.ms=-1
file.delete.delay.ms=1000
auto.create.topics.enable=false
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
"""


@contextmanager
def running_broker(folder: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def _reserved_port() -> socket.socket:
    """A socket on a free port of 127.0.0.1.

    No other process is given the port while the socket is open. The broker can listen on it because
    both set SO_REUSEADDR and this socket does not listen. Source:
    https://man7.org/linux/man-pages/man7/socket.7.html
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved
