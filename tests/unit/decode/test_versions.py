"""A decoder that travels to a worker in which another version of the pipeline is installed."""

from __future__ import annotations

import pickle

import pytest

from pipeline.options.schema_file import load_schema
from transforms.decode import decoder
from transforms.decode.decoder import DECODER_VERSION, Decoder
from transforms.model.elements import RawBlock
from transforms.model.errors import GuaranteeError

BLOCK = RawBlock("payments", 0, [7], [0], [b"{}"])


def test_a_worker_of_the_same_version_decodes_alike() -> None:
    here = Decoder(load_schema(None), max_record_bytes=1)
    there = pickle.loads(pickle.dumps(here))
    assert there.decode(BLOCK).rejected.equals(here.decode(BLOCK).rejected)


def test_a_worker_of_another_version_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    travels = pickle.dumps(Decoder(load_schema(None)))
    monkeypatch.setattr(decoder, "DECODER_VERSION", DECODER_VERSION + 1)
    with pytest.raises(GuaranteeError, match=f"and the client by {DECODER_VERSION}"):
        pickle.loads(travels)


def test_a_client_that_is_too_old_to_tell_its_version_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as older:
        older.setattr(Decoder, "__getstate__", lambda self: {**self.__dict__, "_fast": None})
        travels = pickle.dumps(Decoder(load_schema(None)))
    with pytest.raises(GuaranteeError, match="and the client by an older one"):
        pickle.loads(travels)
