"""The cell of the read loop outlives the process that wrote it."""

from transforms.read.position import PartitionPosition, decode_position, encode_position


def test_the_cell_of_a_partition_is_frozen() -> None:
    position = PartitionPosition("payments", 3, "id", "cluster", 17, 1_790_000_000_000_000, 4)
    encoded = encode_position(position)
    assert encoded.hex() == FROZEN
    assert decode_position(encoded) == position


FROZEN = "99a87061796d656e747303a26964a7636c757374657211cf00065bfeda25e00004c2c0"
