"""The command line: what a person reads, on a terminal and in a log, and what ends how."""

from __future__ import annotations

import io
import logging
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from flows.cli import Interrupted, console
from flows.cli.app import finish
from flows.cli.options import parsed
from flows.cli.session import absolute
from flows.cli.summary import show
from flows.request import resolve, under
from ray_jobs.errors import LyceumError, UsageError
from ray_jobs.families import recipes
from tasks.progress import STAGES, Progress

FIGURE = {"value": 0.8, "low": 0.75, "high": 0.85}
GAIN = {"value": 0.02, "low": 0.01, "high": 0.03}


def report(**changes: Any) -> dict[str, Any]:
    other = {"metrics": {"auc": {**FIGURE, "value": 0.78}}, "difference": {"auc": GAIN}}
    return {
        "service": "algebra",
        "version": "3",
        "protocol": "N: from earlier answers",
        "metrics": {"auc": FIGURE},
        "baseline": other,
        "champion": None,
        "start": {"version": None, "lineage": None, "why": "start.champion is false"},
        "cold_start": None,
        "best_possible": None,
        "cross_validation": None,
        "headline": "auc",
        "data": {"rows": 10, "kept": 6, "quarantined": {"a": 1}, "merged": 1, "repeats": 2},
        "gate": {"passed": True, "reasons": ["passed: good enough"]},
        "links": {"service": "http://here/algebra/docs"},
        "cached": [],
        **changes,
    }


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed, as a log sees it."""
    text = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=text, highlight=False))
    return text


def test_settings_are_pairs_and_a_value_may_hold_an_equals_sign() -> None:
    assert parsed(["columns.item=a=b", "seed=1"]) == {"columns.item": "a=b", "seed": "1"}
    assert parsed(None) == {}
    with pytest.raises(UsageError, match="expected key=value"):
        parsed(["seed"])


def test_a_protocol_is_a_setting_of_the_recipes_that_have_one_and_refused_for_others() -> None:
    chosen = set()
    for name, make in recipes().items():
        if hasattr(make().columns, "protocol"):
            settings = under("K1", name, {"seed": "1"})
            assert settings == {"seed": "1", "columns.protocol": "K1"}
            assert resolve(name, None, "logs", settings, None, None).columns.protocol == "K1"
            assert under(None, name, settings) == settings
            chosen.add(make().family)
        else:
            with pytest.raises(UsageError, match=f"family {make().family} are taken in one way"):
                under("K1", name, {})
    assert chosen
    assert chosen < {make().family for make in recipes().values()}
    with pytest.raises(UsageError, match=r"--protocol and to --set columns.protocol; give one"):
        under("K1", "knowledge", {"columns.protocol": "N"})


def test_a_local_path_is_found_from_anywhere_and_a_url_is_left_alone() -> None:
    assert absolute("logs") == str(Path.cwd() / "logs")
    assert absolute("s3://bucket/logs") == "s3://bucket/logs"
    assert absolute(None) is None


def test_a_summary_shows_intervals_differences_and_every_row(said: io.StringIO) -> None:
    show(report())
    text = said.getvalue()
    assert "0.8000 (0.7500 to 0.8500)" in text
    assert "+0.0200 (+0.0100 to +0.0300)" in text
    assert "10 rows read = 6 kept + 1 quarantined + 1 merged + 2 repeats" in text
    assert "protocol N: from earlier answers" in text
    assert "gate: passed: good enough" in text
    assert "http://here/algebra/docs" in text
    assert "champion" not in text


def test_a_summary_names_the_ceiling_and_the_cache_where_there_are_any(said: io.StringIO) -> None:
    show(
        report(
            best_possible={"by": "a seer", "metrics": {"auc": {**FIGURE, "value": 0.83}}},
            cached=["ingest", "clean"],
        )
    )
    assert "best possible: AUC 0.8300, by a seer; baseline 0.7800" in said.getvalue()
    assert "from cache: ingest, clean" in said.getvalue()


def test_a_summary_says_what_a_start_from_the_champion_was_worth(said: io.StringIO) -> None:
    own, cold = {"epochs": 4, "seconds": 10.5}, {"epochs": 9, "seconds": 24.0}
    start = {"version": "2", "lineage": "l", "why": "it is the champion"}
    show(report(start=start, train=own))
    assert "training began from version 2: 4 epochs, 10.5 s\n" in said.getvalue()
    show(report(start=start, train=own, cold_start={**report()["baseline"], **cold}))
    text = said.getvalue()
    assert "4 epochs, 10.5 s; from nothing: 9 epochs, 24.0 s" in text
    assert "cold start" in text


def test_an_undefined_figure_is_no_number(said: io.StringIO) -> None:
    show(report(metrics={"auc": {"value": None, "low": None, "high": None}}))
    assert "– (– to –)" in said.getvalue()


def test_a_stopped_version_fails_the_command_after_its_report_is_written(
    said: io.StringIO, tmp_path: Path
) -> None:
    stopped = report(gate={"passed": False, "reasons": ["failed: too slow"]})
    path = tmp_path / "new" / "report.json"
    with pytest.raises(LyceumError, match="gate stopped"):
        finish(stopped, path)
    assert "too slow" in said.getvalue()
    assert b'"passed": false' in path.read_bytes()


def test_without_a_terminal_each_stage_is_a_line_and_its_start_is_not(said: io.StringIO) -> None:
    progress = Progress(epochs=1)
    with console.progress(), progress.stage("clean"):
        logging.getLogger("ray_jobs.data").info("clean: %d rows", 5)
    lines = said.getvalue().splitlines()
    assert lines[0] == "clean: 5 rows"
    assert lines[1].startswith("clean: done in ")
    assert len(lines) == 2


def test_after_a_run_nothing_is_printed_any_more(
    said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in console.LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)
    with console.progress():
        pass
    logging.getLogger("tasks").warning("later")
    assert said.getvalue() == ""
    assert {logging.getLogger(name).level for name in console.LOGGERS} == {logging.ERROR}


def test_on_a_terminal_a_stage_is_a_bar_that_keeps_its_last_words() -> None:
    bars = RichProgress(console=Console(file=io.StringIO()))
    handler = console.Bars(bars)

    def tell(text: str, **extra: Any) -> None:
        record = logging.LogRecord("tasks", logging.INFO, "", 0, text, None, None)
        record.__dict__.update(extra)
        handler.emit(record)

    tell("train: started", stage="train", state="started")
    tell("train: epoch 1 of 4", stage="train", state="running", done=0.25)
    (bar,) = bars.tasks
    assert (bar.description, bar.percentage) == ("train", 25)
    tell("train: done in 2.0 s", stage="train", state="done")
    assert bar.finished
    assert bar.fields["words"] == "epoch 1 of 4"
    tell("something else altogether")
    assert len(bars.tasks) == 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed, as a narrow terminal sees it."""
    text = io.StringIO()
    wide = Console(file=text, highlight=False, force_terminal=True, width=48, color_system=None)
    monkeypatch.setattr(console, "out", wide)
    return text


def test_on_a_terminal_a_run_ends_with_a_whole_bar_for_each_stage_and_its_last_words(
    terminal: io.StringIO,
) -> None:
    progress = Progress(epochs=2)
    with console.progress():
        with progress.stage("evaluate"):
            logging.getLogger("tasks").info(
                "evaluate: auc 0.8199 on 7436 rows, far too long a line"
            )
        with pytest.raises(LyceumError), progress.stage("register"):
            raise LyceumError
        progress.skipped("publish", "no platform")
    evaluate, register, publish = last_lines(terminal)
    assert evaluate.startswith("✓ evaluate ")
    assert "auc 0.8" in evaluate
    assert evaluate.endswith("…")
    assert not register.startswith("✓")
    assert " register " in register
    assert register.rstrip().endswith("failed")
    assert publish.startswith("✓ publish ")


def last_lines(terminal: io.StringIO) -> list[str]:
    """What a terminal shows in the end, without its control sequences."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue()).split("\r")[-1].splitlines()


def test_the_names_of_stages_are_whole_on_the_narrowest_terminal(terminal: io.StringIO) -> None:
    console.out.width = 32
    progress = Progress(epochs=1)
    with console.progress():
        for name in STAGES:
            progress.skipped(name, "there is nothing to do for it")
    assert [line.split()[1] for line in last_lines(terminal)] == list(STAGES)


def test_a_table_on_a_terminal_folds_what_is_too_long_and_loses_nothing(
    terminal: io.StringIO,
) -> None:
    url = "http://127.0.0.1:8000/" + "a-service-with-a-long-name" * 2
    console.table("services", ["service", "endpoint"], [["algebra", url]])
    lines = terminal.getvalue().splitlines()
    assert lines[0].strip() == "services"
    assert max(map(len, lines)) <= 48
    cells = [line.split("│")[2].strip() for line in lines if line.startswith("│")]
    assert "".join(cells) == url


@pytest.mark.parametrize("where", ["said", "terminal"])
def test_a_line_is_printed_as_it_is_brackets_and_all(
    where: str, request: pytest.FixtureRequest
) -> None:
    text: io.StringIO = request.getfixturevalue(where)
    line = "gate: failed: [red] is no colour, [/tmp/x] no end of one, and nothing is wrapped " * 3
    console.say(line)
    assert text.getvalue() == f"{line}\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_the_usual_status(number: int, status: int) -> None:
    assert Interrupted(number).exit_code == status
    # Typer turns this one into "Aborted!" and Prefect into a cancelled run.
    assert not issubclass(Interrupted, KeyboardInterrupt)


def test_what_was_asked_for_stands_over_the_recipe() -> None:
    asked = resolve("knowledge", "algebra", "logs", {"budget.epochs": "3"}, 1, 7)
    assert (asked.service, asked.data, asked.workers, asked.seed) == ("algebra", "logs", 1, 7)
    assert asked.budget.epochs == 3
    usual = resolve("knowledge", None, "logs", {}, None, None)
    assert (usual.service, usual.workers, usual.seed) == ("knowledge", 2, 0)
    assert resolve("knowledge", None, "logs", {}, None, 0).seed == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "nothing"}, "no recipe 'nothing'; there are"),
        ({"data": None}, "--data PATH"),
        ({"workers": 0}, "expected at least 1"),
        ({"service": "a b"}, "expected letters of the English alphabet"),
        ({"settings": {"budget.epoch": "1"}}, "no setting 'budget.epoch'"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_the_way_out(
    changes: dict[str, Any], words: str
) -> None:
    asked: dict[str, Any] = {
        "name": "knowledge", "service": None, "data": "logs", "settings": {}, "workers": None,
        "seed": None,
    }  # fmt: skip
    with pytest.raises(UsageError) as refused:
        resolve(**{**asked, **changes})
    assert words in str(refused.value)


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_says_what_it_is_and_goes_by_its_name(name: str) -> None:
    make = recipes()[name]
    assert make().name == name
    assert (make.__doc__ or "").strip()
