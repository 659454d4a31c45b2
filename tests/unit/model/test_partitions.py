from random import Random

import pyarrow as pa

from transforms.model.partitions import sorted_groups

KEYS = ("kafka_topic", "kafka_partition")


def test_each_group_has_its_own_rows_whatever_the_topics_are_called() -> None:
    """Which keys collide in a hash table depends on the names: of 1,000 such pairs of a topic and
    its next generation about twenty came in another order than that of their first rows.
    """
    random = Random(5)
    for _ in range(1000):
        topic = f"topic-{random.randrange(16**12):012x}"
        rows = [
            {"kafka_topic": name, "kafka_partition": partition, "offset": offset}
            for name, partitions in ((topic, 3), (f"{topic}#2", 2))
            for partition in range(partitions)
            for offset in range(partition + 1)
        ]
        random.shuffle(rows)
        found = sorted_groups(pa.Table.from_pylist(rows), KEYS, "offset")
        expected = sorted({(row["kafka_topic"], row["kafka_partition"]) for row in rows})
        assert [(key, group.to_pylist()) for key, group in found] == [
            (
                (name, partition),
                [
                    {"kafka_topic": name, "kafka_partition": partition, "offset": offset}
                    for offset in range(partition + 1)
                ],
            )
            for name, partition in expected
        ]


def test_no_rows_have_no_groups() -> None:
    rows = pa.table({name: pa.array([], pa.int64()) for name in (*KEYS, "offset")})
    assert not list(sorted_groups(rows, KEYS, "offset"))
