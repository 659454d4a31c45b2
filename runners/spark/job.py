"""One job on Beam's job server, from its submission to its end.

Beam's own client keeps a connection for each job for as long as the process lives, waits for an
answer without a bound, and logs Java's stack traces. This one uses the same parts of Beam.
"""

from __future__ import annotations

import atexit
import copy
import functools
import logging
import threading
from collections.abc import Iterable
from tempfile import TemporaryDirectory
from typing import Any, Final
from weakref import WeakKeyDictionary

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.pipeline import Pipeline
from apache_beam.portability import python_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_job_api_pb2,
    beam_job_api_pb2_grpc,
)
from apache_beam.runners.portability import artifact_service
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.transforms import environments

from runners.own_network import own_network
from runners.profile import Build
from runners.temporary_files import temporary_files_in

_LOG = logging.getLogger(__name__)

_CANCEL_SECONDS: Final = 10.0
_LAST_MESSAGES_SECONDS: Final = 10.0

_State = beam_job_api_pb2.JobState
_Message = beam_job_api_pb2.JobMessage
ENDED: Final = (_State.DONE, _State.FAILED, _State.CANCELLED, _State.DRAINED)
"""States that a job does not leave any more."""


WORKERS_OF: Final = {"workers_of": "payment-pipeline", "network": own_network()}
"""Marks a job whose workers are threads of a client of this program, in the network that it is in:
through a tunnel, or a port of a container, other clients use the same job server.
"""


class JobFailed(RuntimeError):
    """The job server says that the job has failed. The text is what it says, Java's words too."""


class SparkJob:
    """Submits a pipeline in a thread of its own, and follows the job there.

    ended: set once the job has ended, well or not, or the job server is lost.
    """

    def __init__(self, address: str, build: Build, options: PipelineOptions) -> None:
        """address: HOST:PORT of the job server. build: adds the steps. options: are not changed."""
        self.ended = threading.Event()
        self._address = address
        self._job_id: str | None = None
        self._is_cancelled = False
        self._guard = threading.Lock()
        self._error: BaseException | None = None
        self._options = options
        self._thread = threading.Thread(
            target=self._run, args=(build,), name="spark job", daemon=True
        )
        self._thread.start()

    def raise_error(self) -> None:
        """Once it has ended: raises JobFailed, grpc.RpcError, or what building it has raised."""
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Asks the job server to cancel the job, and waits a bounded time for its end."""
        with self._guard:
            self._is_cancelled = True
            job_id = self._job_id
        if job_id is not None and not self.ended.is_set():
            with grpc.insecure_channel(self._address) as channel:
                cancel_job(channel, job_id)
        self.ended.wait(_CANCEL_SECONDS)

    def _run(self, build: Build) -> None:
        try:
            with grpc.insecure_channel(self._address) as channel, TemporaryDirectory() as folder:
                follow = _Follow(self, channel, folder, self._options)
                # Beam's client takes the runner's name out of the options, and more.
                pipeline = Pipeline(runner=follow, options=copy.deepcopy(self._options))
                build(pipeline)
                pipeline.run()
        except BaseException as error:  # it is raised by raise_error, in the thread that waits
            self._error = error
        finally:
            self.ended.set()

    def follow(self, channel: grpc.Channel, job_id: str) -> None:
        """Until the end of the job. Raises JobFailed and grpc.RpcError."""
        with self._guard:
            self._job_id = job_id
            if self._is_cancelled:
                cancel_job(channel, job_id)
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
        said: list[Any] = []
        stream = jobs.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=job_id))
        listening = threading.Thread(target=_listen, args=(stream, said), daemon=True)
        listening.start()
        state = _State.UNSPECIFIED
        for event in jobs.GetStateStream(beam_job_api_pb2.GetJobStateRequest(job_id=job_id)):
            state = event.state
            if state in ENDED:
                break
        listening.join(_LAST_MESSAGES_SECONDS)
        stream.cancel()
        if state != _State.DONE:
            raise JobFailed(_words(said) or f"the job is {_State.Enum.Name(state)}")


class _Follow(PortableRunner):
    """Beam's client, with connections and files that end with the job."""

    def __init__(
        self, job: SparkJob, channel: grpc.Channel, folder: str, given: PipelineOptions
    ) -> None:
        """folder: for the files that the workers need. given: the options as they were given."""
        super().__init__()
        self._job = job
        self._channel = channel
        self._folder = folder
        self._given = given

    def default_environment(self, options: PipelineOptions) -> environments.Environment:
        with temporary_files_in(self._folder):
            return super().default_environment(options)

    def run_portable_pipeline(self, pipeline: Any, options: PipelineOptions) -> None:
        # The job server would look for a Java class of this name.
        options.view_as(StandardOptions).runner = None
        _name_worker_pool(pipeline)
        optimized = self._optimize_pipeline(pipeline, options)
        jobs = beam_job_api_pb2_grpc.JobServiceStub(self._channel)
        handle = JobServiceHandle(jobs, options)
        if self._given not in _SENT:
            _SENT[self._given] = handle.get_pipeline_options()
        prepare = beam_job_api_pb2.PrepareJobRequest(
            job_name="job", pipeline=optimized, pipeline_options=_SENT[self._given]
        )
        prepared = jobs.Prepare(prepare, timeout=handle.timeout)
        _stage(prepared)
        run = beam_job_api_pb2.RunJobRequest(preparation_id=prepared.preparation_id)
        self._job.follow(self._channel, jobs.Run(run, timeout=handle.timeout).job_id)


_SENT: Final[WeakKeyDictionary[PipelineOptions, Any]] = WeakKeyDictionary()
"""What is sent for the options of a process's jobs. Beam would ask the job server before each job
which options it knows, and read all flags anew: 20 ms.
"""


def _name_worker_pool(pipeline: Any) -> None:
    """With LOOPBACK the workers are threads of this process, which Spark asks its pool for."""
    for environment in pipeline.components.environments.values():
        if environment.urn == python_urns.EMBEDDED_PYTHON_LOOPBACK:
            pool = environments.ExternalEnvironment(_worker_pool(), WORKERS_OF).to_runner_api(None)
            environment.urn, environment.payload = pool.urn, pool.payload


@functools.cache
def _worker_pool() -> str:
    """The HOST:PORT of this process's only one, which all of its jobs use.

    Beam makes one for each job, keeps it until the process ends, and stops it while Spark may still
    have something to say to it.
    """
    address, server = BeamFnExternalWorkerPoolServicer.start(data_buffer_time_limit_ms=0)
    atexit.register(server.stop, 0)
    return str(address)


def _stage(prepared: Any) -> None:
    """Hands over the files that the workers need."""
    with grpc.insecure_channel(prepared.artifact_staging_endpoint.url) as channel:
        artifact_service.offer_artifacts(
            beam_artifact_api_pb2_grpc.ArtifactStagingServiceStub(channel),
            artifact_service.ArtifactRetrievalService(
                artifact_service.BeamFilesystemHandler(None).file_reader
            ),
            prepared.staging_session_token,
        )


def _listen(stream: Iterable[Any], said: list[Any]) -> None:
    try:
        for message in stream:
            if message.HasField("message_response"):
                said.append(message.message_response)
    except grpc.RpcError:  # the state of the job is what counts; its stream ends too
        return


def _words(said: Iterable[Any]) -> str:
    """Of several causes the first one: what follows is its consequence."""
    errors = [
        str(message.message_text)
        for message in said
        if message.importance == _Message.JOB_MESSAGE_ERROR
    ]
    return next(iter(errors), "")


def cancel_job(channel: grpc.Channel, job_id: str) -> None:
    """Where the job server does not do it, a line of the log says so."""
    jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
    try:
        jobs.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job_id), timeout=_CANCEL_SECONDS)
    except grpc.RpcError as error:
        _LOG.warning("the job is not cancelled: the job server says %s", error.code().name)


def running_jobs(address: str, seconds: float) -> int:
    """How many jobs the job server has in hand. Raises grpc.RpcError where it does not answer."""
    with grpc.insecure_channel(address) as channel:
        return len(jobs_in_hand(channel, seconds))


def jobs_in_hand(channel: grpc.Channel, seconds: float) -> list[str]:
    """Their ids. Raises grpc.RpcError where the job server does not answer."""
    jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
    answer = jobs.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=seconds)
    return [job.job_id for job in answer.job_info if job.state not in ENDED]
