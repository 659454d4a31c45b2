"""Step 3 of streaming: what it means that a stream did not take an append.

- acknowledged at another offset than expected: the destination breaks its contract; stop.
- OffsetAlreadyExists: the offset lies before the end of the stream, which does not say "these
  rows". Success only when one query shows every row of the append in the table; else stop.
- OffsetOutOfRange: an earlier append is missing. Resend from the first unacknowledged one, a
  bounded number of times, then stop.
- StreamFinalized: another process has recovered the shard; this one is the zombie, and fails.
- StreamNotFound: the stream has expired; the bundle fails, and its next attempt recovers the shard.
Any other error leaves open what was written: the bundle fails, and its next attempt recovers the
shard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from transforms.destinations.appends import AppendInFlight, Refusal
from transforms.destinations.contract.present_rows import KEY_COLUMNS
from transforms.destinations.contract.write_streams import (
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.stream.errors import StreamGone, Superseded
from transforms.stream.polling import Polling

_STOPPED: Final = "Nothing more was written; start again from the last checkpoint."


@dataclass(frozen=True)
class ProveOrResend:
    """The RefusalPolicy of streaming, where other processes know the stream as well.

    count_present: (table, rows) -> how many of the rows the table holds. polling: how many resends,
    and how far apart.
    """

    count_present: Callable[[str, pa.RecordBatch], int]
    polling: Polling

    def on_refusal(self, append: AppendInFlight, error: StreamError, resends: int) -> Refusal:
        """See the list above. Raises Superseded, StreamGone, GuaranteeError or `error` itself."""
        match error:
            case OffsetAlreadyExists():
                self._require_proof(append, error)
                return Refusal.WRITTEN
            case OffsetOutOfRange():
                self._require_patience(append, error, resends)
                return Refusal.SEND_AGAIN
            case StreamFinalized():
                raise Superseded(
                    f"{append.table}: another process has recovered this shard ({error})"
                ) from error
            case StreamNotFound():
                raise StreamGone(f"{append.table}: {error}") from error
            case _:
                raise error

    def stop(self, append: AppendInFlight, problem: str) -> GuaranteeError:
        """Names the append by the keys of its first and its last row too."""
        keys = _first_and_last(append.table, append.rows)
        return GuaranteeError(f"{append}, {append.table} {keys}: {problem}. {_STOPPED}")

    def _require_proof(self, append: AppendInFlight, error: OffsetAlreadyExists) -> None:
        is_written = (
            not isinstance(error, DifferentRows)
            and self.count_present(append.table, append.rows) == append.rows.num_rows
        )
        if not is_written:
            problem = f"the offset was written before, but not with these rows: {error.detail}"
            raise self.stop(append, problem) from error

    def _require_patience(
        self, append: AppendInFlight, error: OffsetOutOfRange, resends: int
    ) -> None:
        if resends >= self.polling.tries:
            raise self.stop(append, f"{error.detail}, after {resends} resends") from error
        # The first resend repairs what was lost on the way; a further one needs time to help.
        if resends:
            self.polling.sleep(self.polling.seconds)


def _first_and_last(table: str, rows: pa.RecordBatch) -> str:
    ends = [
        ":".join(str(rows.column(name)[row].as_py()) for name in KEY_COLUMNS[table])
        for row in (0, rows.num_rows - 1)
    ]
    return " to ".join(dict.fromkeys(ends))
