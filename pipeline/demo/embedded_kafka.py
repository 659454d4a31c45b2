"""librdkafka's mock cluster as a process of its own: enough Kafka for a demo, without Java.

`python -m pipeline.demo.embedded_kafka TOPIC` prints its address, and ends by Ctrl-C or when its
standard input does. TOPIC, of which there may be several or none, is there from the start; others
begin with the first message that is sent to them.
It has 4 partitions a topic and keeps 5 MiB of each in memory. It has no transactions, no look-up of
offsets by timestamp and no topic ids.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from confluent_kafka import Producer


@contextmanager
def embedded_kafka() -> Iterator[str]:
    """Runs it for as long as the block lasts, and yields its bootstrap servers.

    It has a session of its own, so that it survives when the process group of a run is killed.
    """
    command = [sys.executable, "-m", "pipeline.demo.embedded_kafka"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


def main() -> None:
    """Starts the cluster with the topics of its arguments, prints its address, and waits."""
    cluster = Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "replaced", "log_level": 2}
    )
    for topic in sys.argv[1:]:
        cluster.list_topics(topic, timeout=10)
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    print(f"{broker.host}:{broker.port}", flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.read()


if __name__ == "__main__":
    main()
