"""What users' scripts depend on: words, exit statuses, and messages that name the flag, its value,
what is allowed and the fix.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from pipeline import __version__, cli, failures
from pipeline.interrupt import finish_before_interrupt
from pipeline.options.config import EARLIEST, LATEST, TIMESTAMP, AdoptTopic, Start
from pipeline.options.quantities import (
    format_duration,
    parse_duration,
    parse_share,
    parse_size,
    parse_whole,
)
from pipeline.options.run_config import parse_start, run_config
from pipeline.options.run_parser import run_parser
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, UsageError

NEEDED = [
    "--bootstrap_servers=localhost:9092",
    "--topic=payments",
    "--destination=duckdb:payments.duckdb",
]
MINUTE, HOUR = 60_000_000, 3_600_000_000


def main(*arguments: str) -> int:
    return cli.main(arguments)


def test_the_defaults_are_the_documented_ones() -> None:
    config = run_config(NEEDED)
    assert (config.bootstrap_servers, config.topics, config.destination) == (
        "localhost:9092",
        ("payments",),
        "duckdb:payments.duckdb",
    )
    assert (
        config.dedup_horizon_us,
        config.extra_retention_us,
        config.max_future_skew_us,
        config.idle_timeout_us,
    ) == (
        HOUR,
        0,
        5 * MINUTE,
        MINUTE,
    )
    assert (config.dedup_layout, config.shards, config.start) == ("sharded", 4, Start(EARLIEST))
    assert config.start.given is None
    assert (config.max_records_per_run, config.max_record_bytes) == (1_000_000, 8 << 20)
    assert (config.unknown_fields, config.on_data_loss, config.json) == ("keep", "fail", False)
    assert (config.schema.dedup_key, config.schema.event_time_field) == (
        "transaction_id",
        "event_time",
    )
    assert (config.schema.amount_column, config.schema.currency_column) == ("amount", "currency")
    assert dict(config.consumer_config) == {
        "bootstrap.servers": "localhost:9092",
        "group.id": "payment-pipeline",
    }


def test_every_option_reaches_the_configuration(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(
        '[{"name": "id", "type": "STRING", "mode": "REQUIRED"},'
        ' {"name": "at", "type": "TIMESTAMP", "mode": "REQUIRED"},'
        ' {"name": "cents", "type": "INT64"}, {"name": "coin", "type": "STRING"}]'
    )
    consumer = tmp_path / "consumer.properties"
    consumer.write_text("# a comment\nclient.id = me\n")
    config = run_config(
        [
            *NEEDED,
            "--runner=DirectRunner",
            "--topic=refunds",
            "--topic=payments",
            "--adopt_topic=payments@3Xw_a-B7T1uBpE0",
            "--adopt_topic=refunds#3@T1uBpE0",
            f"--schema={schema}",
            "--dedup_key=id",
            "--event_time_field=at",
            "--amount_field=cents",
            "--currency_field=coin",
            "--epoch_unit=ms",
            "--dedup_horizon=2h30m",
            "--extra_retention=90s",
            "--max_future_skew=0s",
            "--idle_timeout=never",
            "--dedup_layout=per_key",
            "--shards=7",
            "--start=latest",
            "--max_records_per_run=10",
            "--max_record_bytes=64KiB",
            "--unknown_fields=reject",
            "--on_data_loss=accept",
            "--max_rejected_rate=0.25",
            "--reject_records=payments#2:0:7,payments#2:0:8",
            f"--consumer_config={consumer}",
            "--group_id=mine",
            "--json",
            "--log_format=json",
        ]
    )
    assert config.topics == ("payments", "refunds")
    assert config.reject_records == {("payments#2", 0): (7, 8)}
    assert config.adopt_topics == (
        AdoptTopic("payments", "3Xw_a-B7T1uBpE0"),
        AdoptTopic("refunds", "T1uBpE0", 3),
    )
    assert (config.schema.dedup_key, config.schema.event_time_field) == ("id", "at")
    assert (config.schema.amount_column, config.schema.currency_column) == ("cents", "coin")
    assert config.schema.epoch_units() == {"event_time": "ms"}
    assert [field.column for field in config.schema.fields] == [
        "transaction_id",
        "event_time",
        "cents",
        "coin",
    ]
    assert (config.dedup_horizon_us, config.extra_retention_us, config.max_future_skew_us) == (
        150 * MINUTE,
        90_000_000,
        0,
    )
    assert (config.idle_timeout_us, config.dedup_layout, config.shards) == (None, "per_key", 7)
    assert (config.start, config.max_records_per_run, config.max_record_bytes) == (
        Start(LATEST),
        10,
        64 << 10,
    )
    assert (config.unknown_fields, config.on_data_loss, config.json) == ("reject", "accept", True)
    assert (config.log_format, config.start.given) == ("json", "latest")
    assert config.max_rejected_rate == 0.25
    assert (config.consumer_config["client.id"], config.consumer_config["group.id"]) == (
        "me",
        "mine",
    )


def test_beams_options_work_beside_ours() -> None:
    from apache_beam.options.pipeline_options import (
        DirectOptions,
        GoogleCloudOptions,
        StandardOptions,
    )

    options = run_config(
        [*NEEDED, "--direct_num_workers=1", "--direct_runner_bundle_repeat=2", "--job_name=mine"]
    ).beam_options
    assert options.view_as(DirectOptions).direct_runner_bundle_repeat == 2
    assert options.view_as(GoogleCloudOptions).job_name == "mine"
    assert options.view_as(StandardOptions).runner == "FnApiRunner", (
        "never the switching runner, which may become Prism"
    )


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--topik=x"], ["--topik=x", "no such option", "Did you mean --topic?"]),
        (["stray"], ["stray", "no such option"]),
        (["--shards=0"], ["--shards=0", "from 1 to 4,096"]),
        (["--shards=sixteen"], ["--shards=sixteen"]),
        (["--max_records_per_run=0"], ["--max_records_per_run=0", "from 1 to"]),
        (["--dedup_horizon=1"], ["--dedup_horizon=1", "not a duration", "1h30m"]),
        (["--dedup_horizon=59s"], ["--dedup_horizon=59s", "at least 1m"]),
        (["--extra_retention=-1h"], ["--extra_retention=-1h"]),
        (["--idle_timeout=nevr"], ["--idle_timeout=nevr", "such as 90s or 1h30m, or never."]),
        (["--max_record_bytes=8MB"], ["--max_record_bytes=8MB", "8MiB"]),
        (["--dedup_layout=keyed"], ["--dedup_layout=keyed", "sharded and per_key"]),
        (["--unknown_fields=drop"], ["--unknown_fields=drop", "keep and reject"]),
        (["--on_data_loss=ignore"], ["--on_data_loss=ignore", "fail and accept"]),
        (["--start=yesterday"], ["--start=yesterday", "earliest, latest and timestamp:"]),
        (["--start=timestamp:2026-13-01T00:00:00Z"], ["--start=timestamp:2026-13-01T00:00:00Z"]),
        (["--epoch_unit=minutes"], ["--epoch_unit=minutes", "s, ms, us and ns"]),
        (["--epoch_unit="], ["--epoch_unit=", "s, ms, us and ns"]),
        (
            ["--dedup_key=id"],
            [
                "--dedup_key=id: the default schema has no field id (it has: transaction_id, ",
                "status, payment_method); name one of them, or give --schema=FILE.",
            ],
        ),
        (["--event_time_field=at"], ["--event_time_field=at: the default schema has no field at"]),
        (["--amount_field=cents"], ["the default schema has no field cents (it has: "]),
        (
            ["--dedup_key=payer_id"],
            ["--dedup_key=payer_id", "must be STRING REQUIRED", "STRING NULLABLE"],
        ),
        (
            ["--event_time_field=currency"],
            ["--event_time_field=currency", "must be TIMESTAMP REQUIRED"],
        ),
        (
            ["--amount_field=status"],
            ["--amount_field=status", "NUMERIC or INT64", "or give --schema=FILE."],
        ),
        (["--schema=/nowhere/schema.json"], ["--schema=/nowhere/schema.json", "cannot be read"]),
        (["--consumer_config=/nowhere"], ["--consumer_config=/nowhere", "cannot be read"]),
        (["--adopt_topic=payments"], ["--adopt_topic=payments", "NAME@ID"]),
        (["--adopt_topic=payments#x@ID"], ["--adopt_topic=payments#x@ID", "NAME@ID"]),
        (["--adopt_topic=refunds@ID"], ["--adopt_topic=refunds@ID", "--topic=refunds too"]),
        (["--reject_records=payments#:0:1"], ["--reject_records=payments#:0:1", "topic:partition"]),
        (["--runner=MyRunner"], ["--runner=MyRunner", "Allowed are DirectRunner, FlinkRunner and"]),
    ],
)
def test_wrong_usage_names_flag_value_and_what_is_allowed(
    arguments: list[str], words: list[str], capsys
) -> None:
    assert main("run", *NEEDED, *arguments) == failures.WRONG_USAGE == 2
    printed = capsys.readouterr().err
    assert printed.startswith("wrong usage: ")
    for word in words:
        assert word in printed


@pytest.mark.parametrize("missing", ["bootstrap_servers", "topic", "destination"])
def test_a_missing_flag_is_named(missing: str, capsys) -> None:
    assert (
        main("run", *[argument for argument in NEEDED if not argument.startswith(f"--{missing}")])
        == 2
    )
    assert f"--{missing} is missing" in capsys.readouterr().err


def test_an_unknown_destination_is_wrong_usage(capsys) -> None:
    assert main("run", *NEEDED[:2], "--destination=postgres:x") == 2
    assert "--destination=postgres:x" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments,reason",
    [
        (["--runner=PrismRunner"], "not on a stale copy"),
        (["--runner=PortableRunner"], "no guarantee can be given"),
        (["--streaming"], "fires event-time timers before the watermark reaches them"),
        (["--direct_running_mode=multi_processing"], "only one process can open a DuckDB file"),
        (["--direct_running_mode=multi_threading"], "share one interpreter lock"),
    ],
)
def test_what_cannot_keep_the_guarantee_is_refused_before_anything_starts(
    arguments: list[str], reason: str, capsys, tmp_path
) -> None:
    destination = tmp_path / "payments.duckdb"
    assert (
        main("run", *NEEDED[:2], f"--destination=duckdb:{destination}", *arguments)
        == failures.GUARANTEE_REFUSED
        == 3
    )
    printed = capsys.readouterr().err
    assert arguments[0] in printed
    assert reason.removeprefix("not ") in printed
    assert not destination.exists()


def test_commands_help_and_version(capsys) -> None:
    assert main() == 2
    assert main("--help") == 0
    assert "run       read to the end of the topics" in capsys.readouterr().out
    assert main("--version") == 0
    assert capsys.readouterr().out == f"payment-pipeline {__version__}\n"
    assert main("runn") == 2
    assert (
        "runn: there is no such command. Allowed are run, status, stop, check, prune, produce,"
        " preflight, demo, flink, spark." in capsys.readouterr().err
    )


def test_help_shows_our_options_in_groups_and_leaves_beams_out() -> None:
    text = run_parser().format_help()
    places = [
        text.index(words)
        for words in (
            "Source: ",
            "--bootstrap_servers HOST",
            "--topic NAME",
            "Destination: ",
            "--destination URL",
            "--impersonate_service_account",
            "What is a payment:",
            "--schema FILE",
            "Time and deduplication: ",
            "--dedup_horizon TIME",
            "Run: ",
            "--on_data_loss fail|accept",
            "--runner NAME",
            "Summary and logs:",
            "--log_format text|json",
            "payment-pipeline run --help_beam",
        )
    ]
    assert places == sorted(places)
    assert "(default: 1h)" in text
    assert "(default: None)" not in text and "(default: )" not in text
    assert "--direct_num_workers" not in text


@pytest.mark.parametrize("command", ["run", "preflight"])
def test_help_beam_shows_beams_options_after_ours(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command, "--help_beam")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: payment-pipeline {command} --bootstrap_servers=")
    theirs = text.index("\nApache Beam's options:")
    assert text.index("--log_format") < theirs < text.index("--direct_num_workers")


def test_each_command_speaks_of_itself(capsys) -> None:
    with pytest.raises(SystemExit):
        main("preflight", "--help")
    text = capsys.readouterr().out
    assert text.startswith("usage: payment-pipeline preflight ")
    assert "Changes nothing." in text
    assert main("preflight", *NEEDED, "--topik=x") == 2
    assert "See `payment-pipeline preflight --help`" in capsys.readouterr().err


def test_check_has_no_option_that_changes_tables(capsys) -> None:
    with pytest.raises(SystemExit):
        main("check", "--help")
    text = capsys.readouterr().out
    assert "--table_prefix" in text
    for flag in ("--create_tables", "--update_schema"):
        assert flag not in text
        assert main("check", "--destination=bigquery:my-project.payments", flag) == 2
        assert f"{flag}: there is no such option" in capsys.readouterr().err


def test_an_unexpected_error_is_status_4_with_its_traceback(monkeypatch, capsys) -> None:
    def broken(_: list[str]) -> int:
        raise ZeroDivisionError("surprise")

    monkeypatch.setitem(cli._COMMANDS, "run", broken)
    assert main("run") == failures.UNEXPECTED == 4
    printed = capsys.readouterr().err
    assert "ZeroDivisionError: surprise" in printed and "Traceback" in printed


def test_a_guarantee_error_from_a_worker_is_status_3_with_its_message_alone(
    monkeypatch, capsys
) -> None:
    def stopped(_: list[str]) -> int:
        raise RuntimeError(
            f"Traceback of the worker ... {GuaranteeError('offset 7 is gone')!s} [while running"
            " WriteRows]"
        )

    monkeypatch.setitem(cli._COMMANDS, "run", stopped)
    assert main("run") == 3
    assert capsys.readouterr().err == "stopped: offset 7 is gone\n"


def test_an_interrupt_is_status_130(monkeypatch, capsys) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "run", interrupted)
    assert main("run") == 130
    assert "nothing is half done" in capsys.readouterr().err


def test_the_console_script_and_the_module_are_the_same_command() -> None:
    script = Path(sys.executable).with_name("payment-pipeline")
    for command in ([str(script)], [sys.executable, "-m", "pipeline"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, f"payment-pipeline {__version__}\n")


@pytest.mark.parametrize(
    "text,micros",
    [
        ("90s", 90_000_000),
        ("1h30m", 5_400_000_000),
        ("250ms", 250_000),
        ("2d", 172_800_000_000),
        ("0s", 0),
    ],
)
def test_durations(text: str, micros: int) -> None:
    assert parse_duration("x", text) == micros
    assert parse_duration("x", format_duration(micros)) == micros


@pytest.mark.parametrize("text", ["", "h", "1", "1 h", "1.5h", "-1s", "1y", "99999999d", "\u0661s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="--x="):
        parse_duration("x", text)


def test_sizes_whole_numbers_and_shares() -> None:
    assert [parse_size("x", text) for text in ("1", "2B", "3KiB", "4MiB", "5GiB")] == [
        1,
        2,
        3 << 10,
        4 << 20,
        5 << 30,
    ]
    assert [parse_share("x", text) for text in ("0", "0.02", ".5", "1", "1.0")] == [
        0,
        0.02,
        0.5,
        1,
        1,
    ]
    assert parse_whole("x", "12", 12, 12) == 12
    for judge, texts in (
        (parse_size, ["0", "-1", "1kb", "MiB", ""]),
        (parse_share, ["2", "-0.1", "2%", "", ".", "nan"]),
        (
            lambda flag, text: parse_whole(flag, text, 0, 9),
            ["10", "-1", "1.0", "", "1_0", "9" * 30],
        ),
    ):
        for text in texts:
            with pytest.raises(UsageError, match="--x="):
                judge("x", text)


def test_start_times_are_rounded_up_to_kafkas_milliseconds() -> None:
    assert parse_start("timestamp:1970-01-01T00:00:01Z") == Start(TIMESTAMP, 1000)
    assert parse_start("timestamp:1970-01-01T00:00:01.000001Z") == Start(TIMESTAMP, 1001)
    assert parse_start("timestamp:1970-01-01T01:00:00+01:00") == Start(TIMESTAMP, 0)


def test_an_interrupt_that_a_runner_wraps_into_an_error_of_its_own_is_one_all_the_same(
    monkeypatch, capsys
) -> None:
    def run(_arguments: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("KeyboardInterrupt [while running 'ReadRange']") from error
        return 0

    monkeypatch.setitem(cli._COMMANDS, "run", run)
    before = signal.getsignal(signal.SIGINT)
    assert main("run") == 130
    printed = capsys.readouterr().err
    assert printed == (
        "interrupted: nothing is half done; the next run goes on from the last committed position\n"
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_was_swallowed_stops_the_run_before_its_next_step(
    monkeypatch, capsys
) -> None:
    done = []

    def run(_arguments: list[str]) -> int:
        with suppress(KeyboardInterrupt):  # as a callback or a finalizer does
            signal.raise_signal(signal.SIGINT)
        with finish_before_interrupt():
            done.append("prepared")
        return 0

    monkeypatch.setitem(cli._COMMANDS, "run", run)
    assert main("run") == 130
    assert done == []


@pytest.mark.parametrize(
    "topic,words",
    [
        ("", "--topic=: a topic"),
        ("a,b", "--topic=a,b: a topic's name .* once for each topic"),
        ("a b", "--topic=a b"),
    ],
)
def test_a_topic_that_no_broker_can_have_is_wrong_usage(topic: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run_config(
            ["--bootstrap_servers=a:1", f"--topic={topic}", "--destination=duckdb:payments.duckdb"]
        )


def test_a_path_that_can_hold_no_duckdb_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database")
    for path, words in (
        (tmp_path, "is a folder. Give the path of a file in it."),
        (tmp_path / "none" / "a.duckdb", rf"Create it \(mkdir -p {tmp_path / 'none'}\)"),
        (tmp_path / "text" / "a.duckdb", "text is not a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            open_destination(f"duckdb:{path}")
    with (
        pytest.raises(UsageError, match="cannot be opened as a DuckDB file"),
        open_destination(f"duckdb:{tmp_path / 'text'}"),
    ):
        pass


def test_a_file_of_somebody_elses_is_not_replaced_by_the_demo(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with duckdb.connect("demo.duckdb") as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1")
    assert main("demo") == 2
    assert "was not made by the demo" in capsys.readouterr().err
    assert (tmp_path / "demo.duckdb").exists()


def test_options_of_bigquery_are_refused_for_duckdb_and_checked_for_bigquery(
    tmp_path: Path,
) -> None:
    where = ["--bootstrap_servers=a:1", "--topic=payments"]
    for option in (
        "--table_prefix=x",
        "--location=EU",
        "--create_tables=never",
        "--update_schema",
        "--maximum_bytes_billed=1GiB",
    ):
        with pytest.raises(UsageError, match="only for --destination=bigquery"):
            run_config([*where, "--destination=duckdb:payments.duckdb", option])
    bigquery = [*where, "--destination=bigquery:my-project.payments"]
    config = run_config(
        [
            *bigquery,
            "--table_prefix=x_",
            "--location=EU",
            "--update_schema",
            "--maximum_bytes_billed=2GiB",
        ]
    )
    assert config.destination == "bigquery:my-project.payments"
    assert config.destination_options == {
        "prefix": "x_",
        "location": "EU",
        "create_tables": "if_needed",
        "update_schema": True,
        "max_bytes_billed": 2 << 30,
        "api_endpoint": None,
        "storage_endpoint": None,
        "impersonate": None,
    }
    for option, words in (
        ("--create_tables=yes", "allowed are if_needed and never"),
        ("--table_prefix=a-b", "letters, digits and underscores"),
        ("--bigquery_api_endpoint=http://127.0.0.1:1", "give both, or none"),
        ("--max_record_bytes=9MiB", "at most 8MiB"),
    ):
        with pytest.raises(UsageError, match=words):
            run_config([*bigquery, option])
    for url in (
        "bigquery:payments",
        "bigquery:.d",
        "bigquery:my-project.",
        "bigquery:my-project.a-b",
        "bigquery:X.d",
    ):
        with pytest.raises(UsageError, match=r"bigquery:PROJECT\.DATASET"):
            run_config([*where, f"--destination={url}"])


@pytest.mark.parametrize(
    "api,storage,words",
    [
        ("http://bigquery.example.com", "127.0.0.1:1", "plaintext is allowed only to this machine"),
        ("http://10.0.0.1:9050", "10.0.0.1:9060", "plaintext is allowed only to this machine"),
        (
            "https://bigquery.example.com",
            "127.0.0.1:9060",
            "one is on this machine, the other is not",
        ),
        ("127.0.0.1:9050", "127.0.0.1:9060", "must be a URL"),
        ("http://127.0.0.1.example.com", "127.0.0.1:9060", "plaintext is allowed only"),
    ],
)
def test_credentials_and_payments_never_travel_in_plaintext(
    api: str, storage: str, words: str
) -> None:
    where = [
        "--bootstrap_servers=a:1",
        "--topic=payments",
        "--destination=bigquery:my-project.payments",
    ]
    with pytest.raises(UsageError, match=words):
        run_config(
            [*where, f"--bigquery_api_endpoint={api}", f"--bigquery_storage_endpoint={storage}"]
        )


@pytest.mark.parametrize("shows_beam", [False, True])
def test_the_help_shows_no_default_that_nobody_can_give(shows_beam: bool) -> None:
    shown = run_parser(shows_beam=shows_beam).format_help()
    assert "--flink_master HOST:PORT" in shown
    assert "[auto]" not in shown
