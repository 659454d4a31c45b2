"""Memory goes with exactly one state, and is handed out once."""

from __future__ import annotations

from transforms.deduplicate.fingerprint_index import FingerprintIndex
from transforms.deduplicate.process_memory import (
    TOKEN_BYTES,
    ProcessMemory,
    forget_indexes,
    fresh_token,
    indexes_of,
)


def test_memory_is_taken_once() -> None:
    memory: ProcessMemory[str] = ProcessMemory()
    memory.keep(3, b"token", "kept")
    assert memory.take(3, b"token") == "kept"
    assert memory.take(3, b"token") is None, "a failed bundle must start from the state"


def test_memory_of_another_state_is_dropped() -> None:
    memory: ProcessMemory[str] = ProcessMemory()
    memory.keep(3, b"later", "kept")
    assert memory.take(3, b"rolled back") is None
    assert memory.take(3, b"later") is None


def test_a_shard_without_state_has_no_memory() -> None:
    memory: ProcessMemory[str] = ProcessMemory()
    memory.keep(3, b"token", "kept")
    assert memory.take(3, None) is None


def test_jobs_and_shards_are_apart() -> None:
    index = FingerprintIndex()
    indexes_of("one job").keep(0, b"token", index)
    assert indexes_of("one job").take(1, b"token") is None
    assert indexes_of("another job").take(0, b"token") is None
    assert indexes_of("one job").take(0, b"token") is index


def test_a_job_that_has_ended_leaves_nothing() -> None:
    indexes_of("job").keep(0, b"token", FingerprintIndex())
    forget_indexes("job")
    forget_indexes("job")
    assert indexes_of("job").take(0, b"token") is None


def test_tokens_do_not_repeat() -> None:
    tokens = {fresh_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {TOKEN_BYTES}
