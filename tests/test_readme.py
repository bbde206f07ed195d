"""The README says what the code does: its tables, its commands, its files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from flows.cli.app import app
from tests.readme import README, ROOT, renewed

TEXT = README.read_text()
COMMANDS = sorted(typer.main.get_group(app).commands)


def test_what_the_code_writes_in_the_readme_is_up_to_date() -> None:
    assert renewed(TEXT) == TEXT, "run: make fix"


def test_a_changed_setting_would_be_noticed() -> None:
    assert renewed(TEXT.replace("LYCEUM_HOME", "LYCEUM_HOUSE")) == renewed(TEXT)
    assert TEXT.replace("LYCEUM_HOME", "LYCEUM_HOUSE") != renewed(TEXT)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    assert f"lyceum {command}" in TEXT


def test_every_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"^(?:\.venv/bin/)?lyceum ([a-z]+)", TEXT, re.MULTILINE))
    assert shown
    assert shown <= set(COMMANDS)


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE)) <= targets
    assert {"setup", "demo", "test", "test-all", "check", "fix", "bench"} <= targets


def test_every_option_of_run_is_shown() -> None:
    command = typer.main.get_group(app).commands["run"]
    options = [o for p in command.params for o in p.opts if o.startswith("--")]
    assert all(option in TEXT for option in options)


def test_help_needs_neither_prefect_nor_torch() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from flows.cli.app import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print(sorted({'prefect', 'mlflow', 'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.strip() == "[]"
