"""What `status` shows of a job that Flink runs, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.counted import counted
from pipeline.streaming.figures import JobFigures, one_line
from pipeline.streaming.flink_job import Checkpoint, FlinkJob, cause_of
from runners.flink.rest import ENDED
from transforms import metrics
from transforms.model.moments import span_in_words

_ENDED: Final = (
    "{state}: the job has ended, and owns the tables still: `run --streaming --restore=latest` goes"
    " on, `stop` hands the tables over"
)


@dataclass(frozen=True)
class JobReport:
    """The job at one moment.

    flink_id: Flink's own id of it. checkpoint: the newest complete one, None before the first.
    last_failure: why Flink has begun it again, or why it has ended; None: it never has.
    """

    flink_id: str
    state: str
    figures: JobFigures
    checkpoint: Checkpoint | None
    restarts: int
    last_failure: str | None

    @property
    def ended(self) -> str | None:
        """What to do where the job has ended; None: it has not."""
        return _ENDED.format(state=self.state) if self.state in ENDED else None

    def as_json(self) -> dict[str, Any]:
        """Ages and lags in microseconds. Flink keeps the figures of a job that has ended as they
        were; they are left out.
        """
        checkpoint = self.checkpoint
        return {
            "flink_id": self.flink_id,
            "state": self.state,
            "restarts": self.restarts,
            "last_failure": self.last_failure,
            "checkpoint": None
            if checkpoint is None
            else {
                "path": checkpoint.path,
                "begun_us": checkpoint.begun_us,
                "age_us": self._age_us(checkpoint),
                "bytes": checkpoint.size,
            },
            **({} if self.ended else self.figures.as_json()),
        }

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        if self.ended:
            yield self.ended
        else:
            yield from self._figure_lines()
        checkpoint = self.checkpoint
        if checkpoint is None:
            yield "  no complete checkpoint yet"
        else:
            yield (
                f"  newest checkpoint: begun {span_in_words(self._age_us(checkpoint))} ago,"
                f" {counted(checkpoint.size, 'byte')}, {checkpoint.path}"
            )
        yield f"  restarts: {self.restarts}" + (
            f"; last failure: {self.last_failure}" if self.last_failure else ""
        )

    def _figure_lines(self) -> Iterator[str]:
        figures = self.figures
        yield one_line(self.state, None, figures)
        if not figures.values:
            return
        lags = figures.gauges(metrics.KAFKA_LAG)
        yield "  lag: " + (", ".join(f"{part} {lag:,}" for part, lag in lags.items()) or "unknown")
        if figures.shows_state:
            ids, size = counted(figures.live_ids, "live id"), counted(figures.state_bytes, "byte")
            yield f"  state: {ids}, {size}"
        else:
            yield "  state: not loaded yet; it is with the first records"
        yield f"  latency: half {_below(figures, 0.5)}, 99 of 100 {_below(figures, 0.99)}"
        yield (
            f"  {counted(figures.of(metrics.APPENDS), 'append')},"
            f" {figures.of(metrics.APPEND_RETRIES):,} sent again;"
            f" {counted(figures.of(metrics.RECOVERED_SHARDS), 'shard')} recovered,"
            f" {counted(figures.of(metrics.PRESENT_ROWS), 'row')} found present"
        )

    def _age_us(self, checkpoint: Checkpoint) -> int:
        return max(0, self.figures.at_us - checkpoint.begun_us)


def report_of(job: FlinkJob, at_us: int) -> JobReport:
    """Asks Flink. at_us: the moment, microseconds since 1970. Raises FlinkUnreachable."""
    failures = job.failures()
    return JobReport(
        flink_id=job.jid,
        state=job.state(),
        figures=JobFigures(job.figures(), at_us),
        checkpoint=job.newest_checkpoint(),
        restarts=job.restarts(),
        last_failure=cause_of(failures[0]) if failures else None,
    )


def _below(figures: JobFigures, share: float) -> str:
    bound = figures.latency_ms(share)
    if bound is not None:
        return f"within {bound:,} ms"
    highest = metrics.LATENCY_BOUNDS_MS[-1]
    return f"above {highest:,} ms" if sum(figures.latency_counts()) else "unknown"
