"""`lyceum` as a person or a script calls it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from flows import cli, publishing, services
from flows.cli.session import session
from flows.platform import Platform, running
from flows.platform.environment import environment, ray_token
from ray_jobs import settings as installation
from ray_jobs.errors import LyceumError, PlatformError, UsageError
from ray_jobs.families import families, recipes
from ray_jobs.settings import Settings
from tests.platform_parts import Toys, orphan, same_environment, toys, up_here
from tests.registry_parts import connected, registered
from tests.test_cli import report

# MLflow's own, not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

Lyceum = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A new installation, which the environment names and nothing else does."""
    monkeypatch.chdir(tmp_path)
    with same_environment():
        for name in [n for n in os.environ if n.startswith(("LYCEUM", "MLFLOW", "PREFECT", "RAY"))]:
            del os.environ[name]
        os.environ |= {"LYCEUM_HOME": str(tmp_path / "home"), "LYCEUM_KEY_FILE": f"{tmp_path}/key"}
        yield installation.read()


@pytest.fixture
def lyceum(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Lyceum]:
    """Runs a command; its exit status, standard output and standard error."""
    handlers = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lyceum", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err, "no colours without a terminal"
        return int(ended.value.code or 0), out, err

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_what_there_is_is_listed_one_a_line(lyceum: Lyceum) -> None:
    for command, names in (("families", families()), ("recipes", list(recipes()))):
        status, out, err = lyceum(command)
        assert (status, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()[1:]] == names


def test_a_new_installation_has_no_service_and_says_how_to_make_one(
    lyceum: Lyceum, settings: Settings
) -> None:
    connected(settings)
    assert lyceum("services") == (
        0,
        "no service yet; lyceum run RECIPE --data PATH makes one\n",
        "",
    )
    assert lyceum("services", "--json") == (0, "[]\n", "")


def test_json_is_what_scripts_read_and_lines_say_the_same(
    lyceum: Lyceum, settings: Settings
) -> None:
    registered(connected(settings), settings, "algebra", 2)
    assert lyceum("promote", "algebra", "2")[:2] == (
        0,
        f"algebra: version 2 is champion{publishing.NOT_LIVE}\n",
    )
    rows = json.loads(lyceum("services", "--json")[1])
    assert rows == services.listed(settings)
    words = [str(value) for value in rows[0].values() if value is not None]
    assert lyceum("services")[1].split() == " ".join([*rows[0], *words]).split()
    told = json.loads(lyceum("status", "--json")[1])
    assert told == services.status(settings)
    lines = lyceum("status")[1].splitlines()
    assert {f"{k}: {v}" for k, v in told.items() if not isinstance(v, list)} == {
        line for line in lines if ": " in line
    }
    assert " ".join(words).split() in [line.split() for line in lines]


BAD_USAGE = {
    ("bogus",): "No such command 'bogus'",
    ("run",): "Missing argument",
    ("run", "knowledge", "--data", "x", "--workers", "two"): "Invalid value for '--workers'",
    ("promote", "algebra", "latest"): "Invalid value for 'version'",
    ("run", "nothing"): "no recipe 'nothing'; there are",
    ("run", "knowledge"): "recipe knowledge needs data; say where with --data PATH",
    ("run", "knowledge", "--data", "nowhere"): "nowhere",
    ("run", "knowledge", "--data", ".", "--set", "seed"): "--set 'seed': expected key=value",
    ("run", "knowledge", "--data", ".", "--set", "budget.epoch=1"): "no setting 'budget.epoch'",
    ("run", "knowledge", "--data", ".", "--protocol", "Q"): "columns.protocol='Q': expected one of",
    ("run", "tabular", "--data", ".", "--protocol", "K1"): "--protocol K1: figures of the family",
    ("schedule", "knowledge", "--cron", "0 3 * * *", "--set", "epochs=1"): "no setting 'epochs'",
    ("schedule", "nothing", "--cron", "0 3 * * *"): "no recipe 'nothing'",
}


@pytest.mark.parametrize("words", BAD_USAGE)
def test_bad_words_end_with_status_2_before_anything_is_made(
    lyceum: Lyceum, settings: Settings, words: tuple[str, ...]
) -> None:
    status, out, err = lyceum(*words)
    assert (status, out) == (2, "")
    assert BAD_USAGE[words] in err
    assert "Traceback" not in err
    assert not settings.home.exists()


def test_a_misspelt_variable_ends_every_command_with_its_name(
    lyceum: Lyceum, settings: Settings
) -> None:
    os.environ["LYCEUM_HOEM"] = "/data"
    for command in ("status", "up", "down", "doctor"):
        status, out, err = lyceum(command)
        assert (status, out) == (2, "")
        assert err.startswith("error: LYCEUM_HOEM: no such setting; there are LYCEUM_HOME")


def raising(error: BaseException) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    ("error", "status"), [(UsageError("no [/such] thing"), 2), (PlatformError("mlflow ended"), 1)]
)
def test_an_error_is_one_line_on_standard_error_and_a_traceback_only_when_asked_for(
    lyceum: Lyceum, monkeypatch: pytest.MonkeyPatch, error: LyceumError, status: int
) -> None:
    monkeypatch.setattr(services, "promote", raising(error))
    assert lyceum("promote", "algebra", "1") == (status, "", f"error: {error}\n")
    monkeypatch.setattr(sys, "argv", ["lyceum", "promote", "--debug", "algebra", "1"])
    with pytest.raises(type(error)) as raised:
        cli.main()
    assert raised.value is error


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_status_and_the_way_on(
    lyceum: Lyceum, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    left: list[str] = []

    def interrupted(*_: Any) -> str:
        try:
            signal.raise_signal(number)
        except Exception:  # noqa: BLE001 - as third parties write it
            left.append("swallowed")
        finally:
            left.append("cleaned up")
        return "went on"

    monkeypatch.setattr(services, "rollback", interrupted)
    told = "error: interrupted; run the same command again and it goes on where it was\n"
    assert lyceum("rollback", "algebra") == (status, "", told)
    assert left == ["cleaned up"]


def test_run_hands_over_what_was_asked_and_writes_what_came_of_it(
    lyceum: Lyceum, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def pipeline(**words: Any) -> dict[str, Any]:
        asked.update(words)
        return report(gate={"passed": "--seed" not in sys.argv, "reasons": ["it was slow"]})

    monkeypatch.setattr("flows.pipeline.pipeline", pipeline)
    (tmp_path / "logs.csv").write_text("learner,item,correct\na,b,1\n")
    words = ("run", "knowledge", "--data", "logs.csv", "--json", "new/report.json")
    status, out, _ = lyceum(*words, "--no-publish", "--set", "seed=3", "--set", "split.test=0.3")
    assert (status, "gate: it was slow" in out) == (0, True)
    written = orjson.loads((tmp_path / "new" / "report.json").read_bytes())
    assert written == report(gate={"passed": True, "reasons": ["it was slow"]})
    assert asked["settings"] == {"seed": "3", "split.test": "0.3"}
    assert (asked["data"], asked["publish"]) == (str(tmp_path / "logs.csv"), False)
    assert (asked["seed"], asked["workers"], asked["service"]) == (None, None, None)
    status, _, err = lyceum(*words, "--seed", "0", "--workers", "1", "--service", "algebra")
    assert (status, err) == (1, "error: the gate stopped this version; the reasons stand above\n")
    assert (asked["seed"], asked["workers"], asked["service"]) == (0, 1, "algebra")
    assert asked["publish"] is True
    assert lyceum(*words, "--protocol", "K1")[0] == 0
    assert asked["settings"] == {"columns.protocol": "K1"}


@pytest.fixture
def toy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toys]:
    with toys(settings, monkeypatch) as stand_in:
        yield stand_in


def test_up_serves_what_is_champion_and_down_ends_it_all(
    lyceum: Lyceum, settings: Settings, toy: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def republish(_: Settings, platform: Platform) -> Iterator[str]:
        yield f"    service algebra, live at {platform.services_url}/algebra"

    monkeypatch.setattr(services, "republish", republish)
    status, out, _ = lyceum("up")
    platform = running(settings)
    assert platform is not None
    assert status == 0
    assert out.splitlines()[-3:] == [
        f"up: services at {platform.services_url}, stop with: lyceum down",
        f"    MLflow {platform.mlflow_tracking_uri}, Prefect {platform.prefect_ui}",
        f"    service algebra, live at {platform.services_url}/algebra",
    ]
    assert lyceum("up")[1].startswith("already up\n")
    with orphan(settings) as left:
        assert lyceum("down") == (0, "stopping\ndown\n", "")
        assert not psutil.pid_exists(left.pid)
    assert (running(settings), toy.pids()) == (None, {})
    assert lyceum("down") == (0, "down\n", "")


def test_doctor_fails_only_where_this_machine_is_not_ready(
    lyceum: Lyceum, settings: Settings
) -> None:
    settings.key_file.write_text("secret")
    settings.key_file.chmod(0o644)
    status, out, err = lyceum("doctor")
    assert (status, err) == (1, "error: this machine is not ready; the remedies stand above\n")
    assert f"chmod 600 {settings.key_file}" in out
    settings.key_file.chmod(0o600)
    os.environ["LYCEUM_HOST"] = "10.0.0.1"
    assert lyceum("doctor")[0] == 0


def test_a_session_leads_to_the_platform_that_is_up_unless_a_variable_says_otherwise(
    settings: Settings,
) -> None:
    with orphan(settings) as left:
        alone = session()
        assert not psutil.pid_exists(left.pid), "what a killed run left goes first"
    assert (alone.platform, alone.settings.ray_address) == (None, "")
    assert environment(settings).items() <= os.environ.items()
    assert ray_token(settings.home)
    platform = up_here(settings)
    apart = session(use_platform=False)
    assert (apart.platform, apart.settings.ray_address) == (platform, "")
    os.environ["MLFLOW_TRACKING_URI"] = "http://tracking.example"
    joined = session(ask=False)
    assert joined.platform == platform
    assert joined.settings == replace(
        settings,
        ray_address=platform.ray_address,
        prefect_api_url=platform.prefect_api_url,
        mlflow_tracking_uri="http://tracking.example",
        http_port=platform.ports.http,
    )
    assert os.environ["PREFECT_API_URL"] == platform.prefect_api_url


def test_a_ray_elsewhere_is_joined_with_the_token_that_was_named_for_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/cluster")
    session(ask=False)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == f"{settings.home}/run/ray_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/cluster")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.10:6379")
    session(ask=False)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/of/the/cluster"
    assert os.environ["RAY_AUTH_MODE"] == "token"
