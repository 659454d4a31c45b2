"""A job server of Beam that runs nothing: each job ends as the test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from apache_beam.transforms import environments

State = beam_job_api_pb2.JobState
Message = beam_job_api_pb2.JobMessage
OTHER = "other"


class FakeJobServer(
    beam_job_api_pb2_grpc.JobServiceServicer,  # type: ignore[misc]
    beam_artifact_api_pb2_grpc.ArtifactStagingServiceServicer,  # type: ignore[misc]
):
    """ends: of the jobs in order, a text for one that fails, "" for one that is done, None for one
    that goes on until it is cancelled. others: how many jobs of other clients each look sees,
    until they are cancelled. workers_of_others: HOST:PORT and params of their environment.
    """

    def __init__(
        self,
        *ends: str | None,
        others: tuple[int, ...] = (),
        workers_of_others: tuple[str, dict[str, str]] | None = None,
    ) -> None:
        self.address = ""
        self.submitted = 0
        self.cancelled = 0
        self.asked_for_options = 0
        self._ends = list(ends)
        self._others = list(others)
        self.others_cancelled = 0
        self._workers_of_others = workers_of_others
        self._cancel = threading.Event()
        self._end: str | None = ""
        self._is_gone = False

    def GetJobs(self, request: Any, context: Any) -> Any:
        busy = self._others.pop(0) if self._others else 0
        job = beam_job_api_pb2.JobInfo(job_id=OTHER, state=State.RUNNING)
        return beam_job_api_pb2.GetJobsResponse(job_info=[job] * busy)

    def GetPipeline(self, request: Any, context: Any) -> Any:
        components = beam_runner_api_pb2.Components()
        if self._workers_of_others is not None:
            external = environments.ExternalEnvironment(*self._workers_of_others)
            components.environments["python"].CopyFrom(external.to_runner_api(None))
        pipeline = beam_runner_api_pb2.Pipeline(components=components)
        return beam_job_api_pb2.GetJobPipelineResponse(pipeline=pipeline)

    def DescribePipelineOptions(self, request: Any, context: Any) -> Any:
        self.asked_for_options += 1
        return beam_job_api_pb2.DescribePipelineOptionsResponse()

    def Prepare(self, request: Any, context: Any) -> Any:
        place = endpoints_pb2.ApiServiceDescriptor(url=self.address)
        return beam_job_api_pb2.PrepareJobResponse(
            preparation_id="p", artifact_staging_endpoint=place, staging_session_token="t"
        )

    def ReverseArtifactRetrievalService(self, responses: Any, context: Any) -> Iterator[Any]:
        next(responses)
        yield from ()

    def Run(self, request: Any, context: Any) -> Any:
        self.submitted += 1
        self._end = self._ends.pop(0)
        return beam_job_api_pb2.RunJobResponse(job_id=f"job-{self.submitted}")

    def GetStateStream(self, request: Any, context: Any) -> Iterator[Any]:
        yield beam_job_api_pb2.JobStateEvent(state=State.RUNNING)
        if self._end is None:
            self._cancel.wait(30)
            if self._is_gone:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server is gone")
            yield beam_job_api_pb2.JobStateEvent(state=State.CANCELLED)
        else:
            ended = State.FAILED if self._end else State.DONE
            yield beam_job_api_pb2.JobStateEvent(state=ended)

    def GetMessageStream(self, request: Any, context: Any) -> Iterator[Any]:
        for importance, text in (
            (Message.JOB_MESSAGE_DEBUG, "a stack trace of Java"),
            (Message.JOB_MESSAGE_ERROR, self._end),
        ):
            if self._end:
                message = Message(importance=importance, message_text=text)
                yield beam_job_api_pb2.JobMessagesResponse(message_response=message)

    def Cancel(self, request: Any, context: Any) -> Any:
        if request.job_id == OTHER:
            self.others_cancelled += 1
            self._others.clear()
        else:
            self.cancelled += 1
            self._cancel.set()
        return beam_job_api_pb2.CancelJobResponse(state=State.CANCELLED)

    def go_away(self) -> None:
        """The jobs in hand are lost."""
        self._is_gone = True
        self._cancel.set()
        self._server.stop(1).wait(30)

    def start(self) -> None:
        """Listens on a free port of 127.0.0.1."""
        self._server = grpc.server(ThreadPoolExecutor(16))
        beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        beam_artifact_api_pb2_grpc.add_ArtifactStagingServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()


@contextmanager
def fake_job_server(*ends: str | None, **others: Any) -> Iterator[FakeJobServer]:
    """As FakeJobServer, for as long as the block lasts."""
    server = FakeJobServer(*ends, **others)
    server.start()
    try:
        yield server
    finally:
        server.go_away()
