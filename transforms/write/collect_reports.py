"""CollectReports: all reports of one evaluation of the run, as one set in one place."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import apache_beam as beam

from transforms.destinations.contract.destination import Destination


class CollectReports(beam.PTransform):
    """Saves the reports behind a GroupByKey, so that a set never mixes two evaluations of a stage.

    Only reports pass it; rows never do.
    """

    def __init__(self, run_id: str, destination: Destination) -> None:
        super().__init__()
        self._run_id = run_id
        self._destination = destination

    def expand(self, reports: Iterable[beam.PCollection]) -> beam.PCollection:
        return (
            reports
            | "Flatten" >> beam.Flatten()
            | "OneKey" >> beam.WithKeys(0).with_output_types(tuple[int, bytes])
            | "Group" >> beam.GroupByKey()
            | "Save" >> beam.ParDo(SaveReports(self._run_id, self._destination))
        )


class SaveReports(beam.DoFn):
    """(0, all reports) -> nothing. May run more than once, each time under a new attempt."""

    def __init__(self, run_id: str, destination: Destination) -> None:
        self._run_id = run_id
        self._destination = destination

    def process(self, element: tuple[int, Iterable[bytes]]) -> None:
        with self._destination as destination:
            destination.reports.save(self._run_id, secrets.token_hex(8), list(element[1]))
