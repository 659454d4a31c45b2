"""The parser of `run` and `preflight`, and its help: our options first, then all of Beam's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from pipeline.options.arguments import Arguments, HelpFormatter
from pipeline.options.destination import IMPERSONATION_HELP
from pipeline.options.flags import (
    OURS,
    DestinationOptions,
    KafkaOptions,
    RunOptions,
    StreamingOptions,
)
from pipeline.options.runner import RunnerOptions


class _RunArguments(Arguments, _BeamArgumentParser):
    """Beam's options can be added to Beam's own kind of parser only."""


_DESCRIPTIONS = {
    "run": "Reads payments from Kafka, from the last committed position to the end of the topics,"
    " and writes each exactly once.",
    "preflight": "Finds out whether `run` with the same options could start, and what it would do."
    " Changes nothing. Exit status 3 when it would be refused, 5 when that is not known now.",
}
_SHOWN_WITH_OURS = {
    "--bootstrap_servers": (
        KafkaOptions,
        {"metavar": "HOST:PORT,...", "help": "Kafka's brokers. Required."},
    ),
    "--impersonate_service_account": (
        DestinationOptions,
        {"metavar": "ACCOUNT", "help": IMPERSONATION_HELP},
    ),
    "--runner": (
        RunOptions,
        {"metavar": "NAME", "help": "DirectRunner, SparkRunner; FlinkRunner with --streaming"},
    ),
    "--streaming": (StreamingOptions, {"help": "a job that never ends, on --runner=FlinkRunner"}),
    "--flink_master": (
        StreamingOptions,
        {"metavar": "HOST:PORT", "help": "Flink's REST interface. Required for --streaming."},
    ),
    "--job_endpoint": (
        StreamingOptions,
        {"metavar": "HOST:PORT", "help": "Beam's job server. Required on Flink and Spark."},
    ),
    "--parallelism": (StreamingOptions, {"metavar": "N", "help": "subtasks of each step (1)"}),
    "--environment_type": (
        StreamingOptions,
        {"metavar": "TYPE", "help": "LOOPBACK: here is the worker; or EXTERNAL, PROCESS (Spark)"},
    ),
    "--environment_config": (
        StreamingOptions,
        {"metavar": "VALUE", "help": "EXTERNAL: HOST:PORT of a pool; PROCESS: a command as JSON"},
    ),
}
"""Options that Beam declares, with the group and the words that `--help` shows them with."""


def run_parser(command: str = "run", shows_beam: bool = False) -> Arguments:
    """Our options first, then every option of Beam.

    command: run, or preflight, which takes the same options. shows_beam: whether the help has all
    of Beam's options.
    """
    prog = f"payment-pipeline {command}"
    parser = _RunArguments(
        prog=prog,
        usage=f"{prog} --bootstrap_servers=HOST:PORT --topic=NAME --destination=URL [options]",
        description=_DESCRIPTIONS[command],
        epilog=None if shows_beam else f"Apache Beam's options work too: {prog} --help_beam.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--help_beam", action=_HelpWithBeam, nargs=0, help="these and Apache Beam's options"
    )
    groups = {}
    for options in (*OURS, RunnerOptions):
        groups[options] = _Group(parser, str(options.__doc__).partition("\n")[0].rstrip("."))
        if options is not KafkaOptions:
            options._add_argparse_args(groups[options])
    theirs = _BeamsGroup(parser, groups, shows_beam)
    for options in dict.fromkeys(PipelineOptions.__subclasses__()):
        if options.__module__.startswith("apache_beam."):
            options._add_argparse_args(theirs)
    # The help shows options in this order: --bootstrap_servers, which is Beam's, is the first.
    KafkaOptions._add_argparse_args(groups[KafkaOptions])
    # Beam's own values would look as if the user had given them.
    parser.set_defaults(
        bootstrap_servers=None, runner="DirectRunner", environment_cache_millis=None
    )
    return parser


class _HelpWithBeam(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        command = parser.prog.rpartition(" ")[2]
        print(run_parser(command, shows_beam=True).format_help(), end="")
        parser.exit()


class _Group:
    """An argument group that also takes Beam's value providers, which argparse does not have."""

    def __init__(self, parser: _RunArguments, title: str) -> None:
        self._parser = parser
        self._group = parser.add_argument_group(title)

    def add_argument(self, *names: str, **settings: Any) -> None:
        self._group.add_argument(*names, **settings)

    def add_value_provider_argument(self, *names: str, **settings: Any) -> None:
        self._parser.add_value_provider_argument(*names, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


class _BeamsGroup(_Group):
    """Beam's options: hidden or shown, some of them in groups of ours."""

    def __init__(
        self, parser: _RunArguments, ours: Mapping[type[PipelineOptions], _Group], shown: bool
    ) -> None:
        super().__init__(parser, "Apache Beam's options")
        self._ours = ours
        self._settings = {} if shown else {"help": argparse.SUPPRESS}

    def add_argument(self, *names: str, **settings: Any) -> None:
        if names[0] in _SHOWN_WITH_OURS:
            options, words = _SHOWN_WITH_OURS[names[0]]
            self._ours[options].add_argument(*names, **{**settings, **words})
        else:
            super().add_argument(*names, **{**settings, **self._settings})

    def add_value_provider_argument(self, *names: str, **settings: Any) -> None:
        super().add_value_provider_argument(*names, **{**settings, **self._settings})
