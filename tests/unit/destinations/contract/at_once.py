"""Claims of one ledger by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable


def claim_at_once(threads: int, claim: Callable[[int, Callable[[], object]], bool]) -> list[int]:
    """Numbers of the threads whose claim succeeded, counted from 0.

    claim: called in each thread with its number and a function that returns in all threads at once.
    """
    ready, won = threading.Barrier(threads), []

    def run(number: int) -> None:
        if claim(number, ready.wait):
            won.append(number)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return won
