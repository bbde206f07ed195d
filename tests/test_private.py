"""With ids that nobody else has: none is found anywhere after runs, and nobody after an erasure."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import httpx
import polars as pl
import pytest

from flows.platform import running
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.privacy import load_key
from ray_jobs.settings import Settings
from tests.installation import SCHOOL, Installation

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]

LENIENT = ["--set", "gate.max_calibration_error=1", "--set", "gate.max_latency_ms=10000"]
LENIENT += ["--set", "gate.beat_baseline=false", "--set", "gate.margin=1"]
CASES = ["--set", "columns.label=correct", "--set", "columns.group=learner"]
TABLES = {".arrow": pl.read_ipc, ".parquet": pl.read_parquet}


def planted(folder: Path) -> list[str]:
    """A school's log under such ids: in rows good and bad, in torn lines and in other columns."""
    simulate(SCHOOL, folder)
    learners: set[str] = set()
    strangers: list[str] = []
    for path in sorted(folder.glob("*.csv")):
        header, *lines = path.read_text().splitlines()
        told = [f"{header},session"]
        for line in lines:
            name, _, rest = line.partition(",")
            learner = str(uuid5(NAMESPACE_URL, name)) if name.strip() else name
            strangers.append(str(uuid4()))
            learners.update({learner} if learner.strip() else set())
            told.append(f"{learner},{rest},{strangers[-1]}")
        torn = [f"{learner};torn" for learner in sorted(learners)[:3]]
        path.write_text("\n".join([*told, *torn, ""]))
    return [*sorted(learners), *strangers]


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("school") / "logs"
    return folder, planted(folder)


@pytest.fixture(scope="module")
def at(
    ids: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation.lent(tmp_path_factory.mktemp("private"), ids[0], up=True) as here:
        here.run("knowledge-smoke", "--service", "algebra", "--data", str(ids[0]), *LENIENT)
        here.run("tabular-smoke", *CASES, "--data", str(ids[0]), *LENIENT)
        yield here


def found(names: list[str], *folders: Path) -> set[str]:
    """Those of some names that stand anywhere below folders, whatever it is packed in."""
    wanted = {name.encode() for name in names}
    there = set()
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()):
        text = content(path)
        there |= {f"{name.decode()} in {path}" for name in words(text) & wanted}
    return there


def words(text: bytes) -> set[bytes]:
    """What may be an id: runs of letters, digits and dashes, and every part of long ones."""
    kept = bytes(b if chr(b).isalnum() or b == ord("-") else 32 for b in range(256))
    runs = set(text.translate(kept).split())
    long = {run for run in runs if len(run) > 36}
    return (
        runs
        | {run[n : n + 36] for run in long for n in range(len(run) - 35)}
        | {run[n : n + 24] for run in runs if 24 < len(run) < 200 for n in range(len(run) - 23)}
    )


def content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix in TABLES:
        return data + TABLES[path.suffix](data).drop("sealed", strict=False).write_json().encode()
    if data.startswith(b"SQLite"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return data + "\n".join(database.iterdump()).encode()
    if path.suffix == ".gz":
        return data + gzip.decompress(data)
    if zipfile.is_zipfile(path):
        packed = zipfile.ZipFile(io.BytesIO(data))
        return data + b"\n".join(packed.read(name) for name in packed.namelist())
    return data


def everywhere(at: Installation) -> list[Path]:
    """The home with its store, logs and databases, and where Ray writes."""
    platform = running(Settings(home=at.home))
    assert platform is not None
    return [at.home, Path(platform.ray_temp)]


def test_what_looks_for_ids_finds_those_that_are_there(tmp_path: Path) -> None:
    name = str(UUID(int=7))
    pl.DataFrame({"a": [name]}).write_parquet(tmp_path / "one.parquet")
    (tmp_path / "two.log").write_text(f"x{name}x")
    (tmp_path / "three.gz").write_bytes(gzip.compress(f'{{"id":"{name}"}}'.encode()))
    assert len(found([name, str(UUID(int=8))], tmp_path)) == 3


def test_no_id_is_found_anywhere_after_runs_good_and_bad(
    at: Installation, ids: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = ids
    service = next(s for s in at.status()["services"] if s["service"] == "algebra")
    request = {"learner": names[0], "history": [{"item": "a", "correct": 1}], "candidates": []}
    request["candidates"] = [{"item": "b"}]
    answer = httpx.post(
        f"{service['endpoint']}/v1/predict", json=request, headers=at.key("algebra")
    )
    assert answer.status_code == 200, answer.text
    first = min(folder.glob("*.csv")).read_text().splitlines()
    headless = tmp_path / "headless.csv"
    headless.write_text("\n".join(first[1:200]))
    said = at.lyceum("run", "knowledge-smoke", "--data", str(headless), status=1)
    assert "the first line must name the columns" in said
    assert found(names, *everywhere(at)) == set()


def test_who_was_erased_is_found_nowhere_and_learnt_from_no_more(
    at: Installation, ids: tuple[Path, list[str]]
) -> None:
    folder, (learner, *_) = ids
    pseudonym = load_key(Path(at.environment["LYCEUM_KEY_FILE"])).pseudonym(learner)
    assert found([pseudonym], at.home) != set()
    receipt = json.loads(at.lyceum("erase", learner, "--json"))
    assert found([pseudonym, learner], *everywhere(at)) == set()
    assert len(receipt["snapshots"]) == 2
    assert set(receipt["versions"]) == {"algebra version 1", "tabular-smoke version 1"}
    assert all(service["erased"] for service in at.status()["services"])
    again = at.run("knowledge-smoke", "--service", "algebra", "--data", str(folder), *LENIENT)
    assert again["version"] == "2"
    assert found([pseudonym, learner], *everywhere(at)) == set()
    erased = {service["service"]: service["erased"] for service in at.status()["services"]}
    assert erased == {"algebra": False, "tabular-smoke": True}
