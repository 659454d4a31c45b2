"""Retries of calls: with jitter, within a deadline, and only of what may succeed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import grpc
import requests
from google.api_core.exceptions import (
    GoogleAPICallError,
    RetryError,
    ServerError,
    TooManyRequests,
)
from google.api_core.retry import exponential_sleep_generator
from google.auth.exceptions import RefreshError, TransportError

from transforms.destinations.bigquery.answers import RETRIED, Answer, Meaning, of_error
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.waiting import waiting_for

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS: Final = 30.0
DEADLINE_SECONDS: Final = 600.0
"""Seconds for one call with all its tries.

Longer than a restart of the service takes, or than it needs to notice a new column.
"""

OUT_OF_RANGE_TRIES: Final = 3

ROLES: Final = (
    "The account needs roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the"
    " project"
    " (https://cloud.google.com/bigquery/docs/access-control)."
)

_T = TypeVar("_T")


class RetryPolicy:
    """Whether one call is tried again, and after which pause. clock and sleep in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._ends = clock() + DEADLINE_SECONDS
        self._delays = exponential_sleep_generator(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        self._out_of_range = 0

    def allows(self, answer: Answer) -> bool:
        """Waits a moment if the call may be tried again after this answer."""
        if answer.meaning is Meaning.OUT_OF_RANGE:
            self._out_of_range += 1
            if self._out_of_range > OUT_OF_RANGE_TRIES:
                return False
        elif answer.meaning not in RETRIED:
            return False
        delay = next(self._delays)
        if self._clock() + delay > self._ends:
            return False
        self._sleep(delay)
        return True


def patiently(what: str, call: Callable[[], _T]) -> _T | Answer:
    """The call's result, or the answer that ended its tries.

    call: has the same effect however often it is made. Raises GuaranteeError where a role is
    missing, TryAgainLater where no try succeeded in time.
    """
    retry_policy, answer = RetryPolicy(), None
    with waiting_for(f"BigQuery: {what}", lambda: answer and answer.text):
        while True:
            try:
                return call()
            except (GoogleAPICallError, grpc.RpcError) as error:
                answer = of_error(error)
            except RefreshError as error:
                raise refused_credentials(error) from error
            if not retry_policy.allows(answer):
                raise_if_final(what, answer)
                return answer


@contextmanager
def reachable(what: str) -> Iterator[None]:
    """For calls that the library itself tries again. what: as in "did not answer ...".

    Raises TryAgainLater where its tries have ended without an answer, GuaranteeError for refused
    credentials.
    """
    try:
        yield
    except RefreshError as error:
        raise refused_credentials(error) from error
    except (
        ServerError,
        TooManyRequests,
        RetryError,
        TransportError,
        requests.exceptions.RequestException,
    ) as error:
        raise TryAgainLater(
            f"BigQuery did not answer {what} ({error}). What is committed is correct; run again."
        ) from error


def refused_credentials(error: RefreshError) -> GuaranteeError:
    """TryAgainLater where Google's server for tokens, not the account, is the reason."""
    if error.retryable:
        return TryAgainLater(
            f"BigQuery: no access token can be had at the moment ({error}). What is committed is"
            " correct; run again."
        )
    return GuaranteeError(
        f"BigQuery: the credentials are refused ({error}). Renew them with `gcloud auth"
        " application-default login`, or correct the key file or"
        " the impersonated account. What is committed is correct."
    )


def raise_if_final(what: str, answer: Answer) -> None:
    """Raises GuaranteeError for an answer that is final, TryAgainLater after all tries."""
    if answer.meaning is Meaning.DENIED:
        raise GuaranteeError(f"BigQuery refuses {what} ({answer.text}). {ROLES}")
    if answer.meaning in RETRIED:
        raise TryAgainLater(
            f"BigQuery: {what} did not succeed within {DEADLINE_SECONDS:.0f} s ({answer.text})."
            " What is committed is correct; run again."
        )
    if answer.meaning is Meaning.NO_TABLE:
        raise GuaranteeError(
            f"BigQuery: {what}: {answer.text}. The table was dropped; restore it, or use a new"
            " destination."
        )
    if answer.meaning is Meaning.STOP:
        raise GuaranteeError(
            f"BigQuery: {what} failed ({answer.text}). What is committed is correct; report this"
            " line if it repeats."
        )
