"""How long streaming waits for rows that were acknowledged and are not visible yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from transforms.model.errors import GuaranteeError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Polling:
    """How often to look for what must appear: `tries` looks, `seconds` apart."""

    tries: int = 10
    seconds: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def until_complete(self, look: Callable[[], tuple[Found, Sequence[str]]]) -> Found:
        """What `look` finds, as soon as nothing is missing. look: (found, what is missing).

        Raises GuaranteeError when something is missing in the last look too.
        """
        missing: Sequence[str] = ()
        for attempt in range(self.tries):
            if attempt:
                self.sleep(self.seconds)
            found, missing = look()
            if not missing:
                return found
        raise GuaranteeError(
            f"rows that were acknowledged are not visible after {self.tries} looks:"
            f" {'; '.join(missing)}. Nothing was written; start again."
        )
