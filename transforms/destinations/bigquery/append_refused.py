"""The error that a refused append ends with."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from transforms.destinations.bigquery.answers import Answer, Meaning
from transforms.destinations.bigquery.limits import MAX_ROW_BYTES
from transforms.destinations.bigquery.retry import raise_if_final
from transforms.destinations.bigquery.rows import RowsRefused
from transforms.destinations.contract.write_streams import (
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError

_ERRORS: Final[dict[Meaning, type[StreamError]]] = {
    Meaning.ALREADY_EXISTS: OffsetAlreadyExists,
    Meaning.OUT_OF_RANGE: OffsetOutOfRange,
    Meaning.FINALIZED: StreamFinalized,
    Meaning.NOT_FOUND: StreamNotFound,
}


def refused(stream: str, offset: int, rows: pa.RecordBatch, answer: Answer) -> Exception:
    """For an append of `rows` at this offset of a write stream, which the service did not take."""
    if answer.meaning is Meaning.ROWS_REFUSED:
        return RowsRefused(rows, answer)
    if answer.meaning is Meaning.STOP and rows.num_rows == 1:
        return RowsRefused(rows, Answer(Meaning.ROWS_REFUSED, answer.text, ((0, answer.text),)))
    if answer.meaning in _ERRORS:
        return _ERRORS[answer.meaning](stream, f"offset {offset}: {answer.text}")
    try:
        raise_if_final(f"an append to write stream {stream} at offset {offset}", answer)
    except GuaranteeError as final:
        return final
    return GuaranteeError(
        f"write stream {stream}: an append at offset {offset} was refused ({answer.text})."
        " Nothing of it is written."
    )


def too_large(rows: pa.RecordBatch, size: int) -> RowsRefused:
    """For rows that no request can carry. size: of them as a request has them, in bytes."""
    text = f"takes {size:,} bytes, and a request at most {MAX_ROW_BYTES:,}"
    each = tuple((index, text) for index in range(rows.num_rows))
    return RowsRefused(rows, Answer(Meaning.ROWS_REFUSED, text, each))
