"""What settings promise: the environment over the file over the default, and no slip unseen."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from ray_jobs.errors import UsageError
from ray_jobs.settings import FOREIGN, MARKS, Settings, read, variable

NAMES = [f.name for f in fields(Settings)]


def test_nothing_said_is_the_default_and_makes_nothing(tmp_path: Path) -> None:
    settings = read({"PATH": "/bin", "HOME": "/root"}, tmp_path)
    assert settings == Settings(
        home=Path.cwd() / ".lyceum", key_file=Path("~/.config/lyceum/key").expanduser()
    )
    assert settings.store_uri == str(Path.cwd() / ".lyceum" / "store")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_read_from_file_and_environment_and_the_latter_wins(
    name: str, tmp_path: Path
) -> None:
    number = isinstance(getattr(Settings, name), int)
    low, high = ("7", "8") if number else ("/low", "/high")
    (tmp_path / "lyceum.toml").write_text(f"{name} = {low if number else repr(low)}\n")
    assert str(getattr(read({}, tmp_path), name)) == low
    assert str(getattr(read({variable(name): high}, tmp_path), name)) == high
    assert str(getattr(read({variable(name): ""}, tmp_path), name)) == low
    assert type(getattr(read({}, tmp_path), name)) in {int, str, type(Path())}


def test_variables_are_ours_or_those_that_others_read_too() -> None:
    assert variable("home") == "LYCEUM_HOME"
    assert {variable(name) for name in NAMES if not variable(name).startswith("LYCEUM_")} == {
        "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS",
    }  # fmt: skip
    assert set(FOREIGN) <= set(NAMES)


def test_a_misspelt_variable_is_refused_and_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="LYCEUM_STOER: no such setting; there are LYCEUM_HOME"):
        read({"LYCEUM_STOER": "/data"}, tmp_path)
    assert read(dict.fromkeys(MARKS, "x"), tmp_path) == read({}, tmp_path)


def test_a_misspelt_name_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lyceum.toml").write_text("stoer = '/data'\n")
    with pytest.raises(UsageError, match=r"lyceum\.toml: no setting 'stoer'; there are home"):
        read({}, tmp_path)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lyceum.toml").write_text("home = \n")
    with pytest.raises(UsageError, match=r"lyceum\.toml is not TOML"):
        read({}, tmp_path)


def test_a_value_of_another_type_is_named_where_it_stands(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="LYCEUM_CPUS='many'; expected a whole number"):
        read({"LYCEUM_CPUS": "many"}, tmp_path)
    for value, text in (("'web'", "web"), ("80.5", r"80\.5"), ("true", "True")):
        (tmp_path / "lyceum.toml").write_text(f"http_port = {value}\n")
        with pytest.raises(
            UsageError, match=rf"lyceum\.toml: http_port='{text}'; expected a whole"
        ):
            read({}, tmp_path)


@pytest.mark.parametrize(
    ("store", "uri"),
    [
        ("s3://bucket/lyceum", "s3://bucket/lyceum"),
        ("/data/store", "/data/store"),
        ("data/store", str(Path.cwd() / "data" / "store")),
        ("file:///data/store", "/data/store"),
        ("~/store", str(Path.home() / "store")),
    ],
)
def test_places_mean_the_same_from_every_folder(store: str, uri: str, tmp_path: Path) -> None:
    assert read({"LYCEUM_STORE": store}, tmp_path).store_uri == uri
    home = read({"LYCEUM_HOME": "h"}, tmp_path).home
    assert (home.is_absolute(), home.name) == (True, "h")
