"""What Beam is told from memory is what it would have worked out."""

from __future__ import annotations

import inspect
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.options.pipeline_options import (
    DebugOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.transforms import core, userstate
from apache_beam.transforms.core import CallableWrapperDoFn
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec
from apache_beam.typehints import decorators

from runners import beam_answers

FOR_WARNINGS = {"retain_unknown_options": True, "display_warnings": True}
"""How Pipeline.run asks."""

FLAGS = ["--runner=DirectRunner", "--experiments=a", "--experiments=b", "--job_endpoint=host:1"]


class Adds(beam.DoFn):
    def process(self, element: int, more: int = 1, *, window: Any = beam.DoFn.WindowParam) -> None:
        """Nothing."""


@pytest.mark.parametrize("kind", [PipelineOptions, StandardOptions, DebugOptions, PortableOptions])
def test_options_are_those_of_a_parser(kind: type[PipelineOptions]) -> None:
    parsed = kind.__new__(kind)
    beam_answers._parse(parsed, FLAGS, streaming=True)
    for _ in range(2):
        remembered = kind(FLAGS, streaming=True)
        assert vars(remembered._visible_options) == vars(parsed._visible_options)
        assert remembered._all_options == parsed._all_options
        assert remembered.get_all_options() == parsed.get_all_options()


def test_whoever_changes_his_options_changes_those_of_nobody_else() -> None:
    mine, other = PipelineOptions(FLAGS), PipelineOptions(FLAGS)
    mine.view_as(DebugOptions).experiments.append("c")
    mine.view_as(StandardOptions).streaming = True
    assert other.view_as(DebugOptions).experiments == ["a", "b"]
    assert not other.view_as(StandardOptions).streaming
    assert PipelineOptions(FLAGS).view_as(DebugOptions).experiments == ["a", "b"]


def test_options_without_flags_are_those_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for argument in ("--job_endpoint=one:1", "--job_endpoint=two:2"):
        monkeypatch.setattr("sys.argv", ["python", argument])
        endpoint = PipelineOptions().view_as(PortableOptions).job_endpoint
        assert f"--job_endpoint={endpoint}" == argument


def test_all_options_are_those_that_beam_finds() -> None:
    options = PipelineOptions([*FLAGS, "--unknown_flag=1"])
    for streaming in (True, False, False):
        options.view_as(StandardOptions).streaming = streaming
        found = options.get_all_options(**FOR_WARNINGS)
        assert found == beam_answers._ask_all(options, **FOR_WARNINGS)
        assert (found["streaming"], found["unknown_flag"]) == (streaming, "1")
        found["experiments"].clear()
    options.view_as(DebugOptions).experiments.append("c")
    assert options.get_all_options(**FOR_WARNINGS)["experiments"] == ["a", "b", "c"]
    other = PipelineOptions(["--unknown_flag=2"]).get_all_options(**FOR_WARNINGS)
    assert other["unknown_flag"] == "2"
    # Asked in another way, it is another answer.
    assert "unknown_flag" not in options.get_all_options()


def test_all_options_without_flags_are_those_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for endpoint in ("one:1", "two:2"):
        monkeypatch.setattr("sys.argv", ["python", f"--job_endpoint={endpoint}"])
        found = PipelineOptions().get_all_options(**FOR_WARNINGS)
        assert found["job_endpoint"] == endpoint


def test_a_class_of_options_that_is_new_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam_answers, "_all", {})  # else the new class would outlive this test
    options = PipelineOptions(FLAGS)
    assert "of_a_new_class" not in options.get_all_options(**FOR_WARNINGS)

    class New(PipelineOptions):
        @classmethod
        def _add_argparse_args(cls, parser: Any) -> None:
            parser.add_argument("--of_a_new_class", default="there")

    assert options.get_all_options(**FOR_WARNINGS)["of_a_new_class"] == "there"


def test_flags_may_be_any_iterable() -> None:
    flags = [*FLAGS, "--job_name=iterated"]
    for given in (iter(flags), flags, tuple(flags)):
        assert PipelineOptions(given).get_all_options()["job_name"] == "iterated"


def test_a_string_is_no_list_of_flags() -> None:
    with pytest.raises(ValueError, match="single string"):
        PipelineOptions("--runner=DirectRunner")


def test_parameters_are_those_of_the_function() -> None:
    for asked in (Adds.process, Adds().process, len):
        for _ in range(2):
            expected = beam_answers._ask_signature(asked)
            assert str(decorators.get_signature(asked)) == str(expected)
            assert list(core.get_signature(asked).parameters) == list(expected.parameters)
    names, _ = core.get_function_args_defaults(Adds().process)
    names.append("of the caller")
    assert core.get_function_args_defaults(Adds().process) == beam_answers._ask(Adds().process)
    assert "self" in inspect.signature(Adds.process).parameters


class Counts(beam.DoFn):
    CELL = ReadModifyWriteStateSpec("cell", BytesCoder())
    TIMER = TimerSpec("timer", TimeDomain.REAL_TIME)

    def process(
        self,
        element: tuple[str, int],
        cell: Any = beam.DoFn.StateParam(CELL),
        timer: Any = beam.DoFn.TimerParam(TIMER),
    ) -> None:
        """Nothing."""


class Hides(Counts):
    """Asked first with another thing in the place of its method."""


def test_cells_and_timers_are_those_of_the_dofn() -> None:
    for dofn in (
        Counts(),
        Adds(),
        Counts(),
        CallableWrapperDoFn(len),
        CallableWrapperDoFn(lambda element: [element]),
        CallableWrapperDoFn(Counts().process),
        CallableWrapperDoFn(print),
    ):
        cells, timers = userstate.get_dofn_specs(dofn)
        assert (cells, timers) == beam_answers._ask_specs(dofn)
        cells.clear()
    assert userstate.get_dofn_specs(Counts()) == ({Counts.CELL}, {Counts.TIMER})
    typed = Counts().with_output_types(int)
    with_hints = next(iter(vars(typed))), userstate.get_dofn_specs(typed)
    assert with_hints == ("_type_hints", ({Counts.CELL}, {Counts.TIMER}))
    borrows: Any = Adds()
    borrows.finish_bundle = Counts().process
    assert userstate.get_dofn_specs(borrows) == ({Counts.CELL}, {Counts.TIMER})
    hides: Any = Hides()
    hides.process = len
    assert userstate.get_dofn_specs(hides) == (set(), set())
    assert userstate.get_dofn_specs(Hides()) == ({Counts.CELL}, {Counts.TIMER})


def test_an_unknown_version_of_beam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PipelineOptions, "__init__", beam_answers._parse)
    monkeypatch.setattr(core, "get_signature", lambda asked: None)
    with pytest.raises(RuntimeError, match="apache-beam"):
        beam_answers.remember()
    assert PipelineOptions.__init__ is beam_answers._parse
