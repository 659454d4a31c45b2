"""A job that takes over ends the jobs before it in Flink, wherever their workers run."""

from __future__ import annotations

from typing import Any
from urllib.request import Request

import pytest

from pipeline.streaming.superseded import cancel_superseded, refuse_superseded
from runners.flink.rest import FlinkUnreachable
from tests.support.fake_flink import JID, JOB_ID, FakeFlink
from transforms.model.errors import GuaranteeError

CANCEL = f"PATCH /jobs/{JID}"


@pytest.mark.parametrize("state", ["RUNNING", "RESTARTING"])
def test_a_job_before_is_cancelled(state: str) -> None:
    flink = FakeFlink()
    flink.state = state
    cancel_superseded(flink, ["job of long ago", JOB_ID])
    assert CANCEL in flink.calls
    assert flink.state == "CANCELED"


@pytest.mark.parametrize(("state", "jobs"), [("FAILED", [JOB_ID]), ("RUNNING", ["another job"])])
def test_what_has_ended_or_is_none_of_ours_is_left_alone(state: str, jobs: list[str]) -> None:
    flink = FakeFlink()
    flink.state = state
    cancel_superseded(flink, jobs)
    assert CANCEL not in flink.calls


def test_one_that_does_not_end_does_not_hold_up_the_new_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Hanging(FakeFlink):
        def _call(self, request: Request) -> Any:
            return None if request.get_method() == "PATCH" else super()._call(request)

        def cancel(self, job: str, seconds: float = 0.0) -> None:
            super().cancel(job, 0.0)

    cancel_superseded(Hanging(), [JOB_ID])
    assert f"job {JOB_ID} is superseded and writes no more, but has not ended" in caplog.text


class EndsFirst(FakeFlink):
    """The job ends by itself right before it is asked to; Flink refuses to cancel it then."""

    def _call(self, request: Request) -> Any:
        if request.get_method() == "PATCH":
            self.state = "FAILED"
            raise FlinkUnreachable(f"PATCH {request.full_url}: status 409: it has ended")
        return super()._call(request)


def test_a_superseded_job_that_ends_itself_meanwhile_does_not_hold_up_the_next_one() -> None:
    flink = EndsFirst()
    cancel_superseded(flink, [JOB_ID])
    assert flink.state == "FAILED"


def test_a_flink_that_refuses_to_cancel_a_job_that_runs_is_an_error() -> None:
    class Refuses(FakeFlink):
        def ask_to_cancel(self, job: str) -> None:
            raise FlinkUnreachable("status 500")

    with pytest.raises(FlinkUnreachable, match="500"):
        cancel_superseded(Refuses(), [JOB_ID])


def test_a_command_whose_job_was_superseded_does_not_end_as_one_that_was_stopped() -> None:
    refuse_superseded("b", ["a", "b"])
    with pytest.raises(GuaranteeError, match="job a was superseded by b"):
        refuse_superseded("a", ["a", "b"])
