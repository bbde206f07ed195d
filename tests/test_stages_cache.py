"""What the stages keep: work is done again for what it depends on, and for nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import ray_jobs
from ray_jobs import store
from ray_jobs.artifact import fetched
from ray_jobs.data.tables import read_parquet
from ray_jobs.settings import Settings
from ray_jobs.training import submit
from ray_jobs.training.events import Event
from tasks.run import Run
from tasks.train import train
from tests.stages_parts import Told, in_process, planned, school, tell, write_key

MODEL = {"train", "evaluate"}
DIVIDED = {"split", "describe", *MODEL}
EVERYTHING = {"ingest", "clean", *DIVIDED}
SOURCES = Path(ray_jobs.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A school's log, and a home in which its stages have run."""
    here = tmp_path_factory.mktemp("school")
    school(here)
    with in_process():
        yield here


@pytest.fixture(scope="module")
def first(folder: Path) -> Told:
    return tell(planned(folder))


@pytest.fixture
def moved(folder: Path, first: Told, tmp_path: Path) -> Path:
    """The same log elsewhere, to be changed."""
    shutil.copytree(folder / "logs", tmp_path / "logs")
    return tmp_path / "logs"


def test_the_same_run_again_has_nothing_to_do_and_says_the_same(folder: Path, first: Told) -> None:
    assert first.worked == EVERYTHING
    again = tell(planned(folder))
    assert again.worked == set()
    assert again.report.as_dict() == first.report.as_dict()
    for part in ("snapshot", "clean", "splits", "lineage", "model", "heard"):
        assert getattr(again, part) == getattr(first, part), part


SETTINGS = [
    ("gate.margin", "0.5", set()),
    ("gate.max_latency_ms", "1", set()),
    ("resources.replica_cpus", "1", set()),
    ("seed", "1", MODEL),
    ("workers", "2", MODEL),
    ("spec.prior", "2", MODEL),
    ("budget.epochs", "2", MODEL),
    ("split.test", "0.3", DIVIDED),
    ("split.until", "0.5", DIVIDED),
    ("service", "geometry", DIVIDED),
    ("columns.skill_separator", "|", EVERYTHING),
    ("max_bad_fraction", "0.3", {"clean", "describe"}),
]


@pytest.mark.parametrize(("key", "value", "again"), SETTINGS)
def test_a_setting_does_again_what_depends_on_it(
    folder: Path, first: Told, key: str, value: str, again: set[str]
) -> None:
    told = tell(planned(folder, **{key: value}))
    assert told.worked == again
    assert (told.lineage == first.lineage) == ("train" not in again)


def append(logs: Path) -> None:
    path = logs / "simulated-1.csv"
    path.write_text(path.read_text() + "s-000001,addition-001,addition,1,1760000000\n")


def correct(logs: Path) -> None:
    """The same rows, but one learner was right after all."""
    path = logs / "simulated-2.csv"
    path.write_text(path.read_text().replace(",0,", ",1,", 1))


def join(logs: Path) -> None:
    """The same rows in one file, the last ones first."""
    files = sorted(logs.iterdir(), reverse=True)
    rows = [line for file in files for line in file.read_text().splitlines()[1:]]
    header = files[0].read_text().splitlines()[0]
    for file in files:
        file.unlink()
    (logs / "simulated.csv").write_text("\n".join([header, *rows, ""]))


DELIVERIES = [(append, EVERYTHING), (correct, EVERYTHING), (join, {"ingest"})]


@pytest.mark.parametrize(("change", "again"), [(None, set()), *DELIVERIES])
def test_another_row_does_all_again_and_another_place_or_order_does_not(
    folder: Path, moved: Path, change: Callable[[Path], None] | None, again: set[str]
) -> None:
    if change:
        change(moved)
    run = planned(folder)
    told = tell(replace(run, recipe=replace(run.recipe, data=str(moved))))
    assert told.worked == again


SOURCE_FILES = [
    # What is made again to the same bytes makes nothing after it again.
    ("families/knowledge/formats.py", {"ingest"}),
    ("families/knowledge/rules.py", {"clean"}),
    ("data/moments.py", {"clean", "evaluate"}),
    ("data/split.py", {"split"}),
    ("data/spread.py", {"describe"}),
    ("data/drift.py", {"describe"}),
    ("data/proof.py", {"describe"}),
    ("families/knowledge/vocabulary.py", MODEL),
    ("families/knowledge/networks/rasch.py", MODEL),
    ("families/knowledge/networks/lstm.py", set()),
    ("training/loop.py", MODEL),
    ("train.py", MODEL),
    ("artifact.py", MODEL),
    ("predictor.py", MODEL),
    ("families/knowledge/slices.py", {"evaluate"}),
    ("evaluation.py", {"evaluate"}),
    ("metrics/binary.py", {"evaluate"}),
    ("intervals.py", {"evaluate"}),
    ("privacy.py", EVERYTHING - {"describe"}),
    ("serving/surface.py", set()),
]


@pytest.mark.parametrize(("name", "again"), SOURCE_FILES)
def test_a_line_of_code_does_again_what_it_makes(
    folder: Path,
    first: Told,
    name: str,
    again: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = tmp_path / "ray_jobs"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(ray_jobs, "__file__", str(sources / "__init__.py"))
    assert tell(planned(folder)).worked == set()
    (sources / name).write_text((sources / name).read_text() + "\n# another line\n")
    assert tell(planned(folder)).worked == again


def test_another_key_is_other_data_with_the_same_figures(
    folder: Path, first: Told, tmp_path: Path
) -> None:
    run = planned(folder)
    write_key(tmp_path / "key", b"o" * 32)
    told = tell(replace(run, settings=replace(run.settings, key_file=tmp_path / "key")))
    assert told.worked == EVERYTHING
    assert told.clean.digest != first.clean.digest
    assert told.splits.rows == first.splits.rows
    for name in ("log_loss", "brier"):
        figure = first.report.candidate.metrics[name].value
        assert told.report.candidate.metrics[name].value == pytest.approx(figure, abs=1e-4)


@pytest.mark.parametrize("where", ["", "memory://{0.name}"])
def test_another_installation_with_the_same_key_makes_the_same_model(
    folder: Path, first: Told, moved: Path, tmp_path: Path, where: str
) -> None:
    recipe = replace(first.run.recipe, data=str(moved))
    store_uri = where.format(tmp_path)
    elsewhere = Settings(home=tmp_path / "home", store=store_uri, key_file=folder / "key")
    told = tell(Run(recipe, elsewhere))
    assert told.worked == EVERYTHING
    assert told.model.artifact.startswith(elsewhere.store_uri)
    assert told.lineage == first.lineage
    assert told.report.candidate == first.report.candidate
    assert told.report.golden == first.report.golden
    assert told.report.size_mb == pytest.approx(first.report.size_mb, rel=0.01)


def test_what_is_trained_already_asks_for_no_cluster_and_tells_its_epochs_again(
    first: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a cluster was asked for")

    monkeypatch.setattr(submit, "submit", refuse)
    heard: list[Event] = []
    run, splits = first.run, first.splits
    model, cached = train.fn(run, splits, first.lineage, refuse, heard.append)  # type: ignore[arg-type]
    assert (model, cached) == (first.model, True)
    assert [event.kind for event in heard] == ["started", "epoch", "finished"]


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def test_a_run_killed_at_any_file_goes_on_to_what_an_undisturbed_one_makes(
    folder: Path, first: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file kills the run that wants to write it first; the next one gets past it."""
    killers: list[str] = []
    whole = store.write_bytes

    def write(uri: str, data: bytes) -> None:
        if uri not in killers:
            killers.append(uri)
            raise Killed(uri)
        whole(uri, data)

    monkeypatch.setattr(store, "write_bytes", write)
    run = Run(first.run.recipe, Settings(home=tmp_path / "home", key_file=folder / "key"))
    told = None
    while told is None:
        try:
            told = tell(run)
        except Killed:
            continue
    monkeypatch.undo()
    commits = {uri.split("/stages/")[1].split("/")[0] for uri in killers if "/stages/" in uri}
    assert commits == EVERYTHING | {"profile", "baseline"}
    assert_equal_but_for_their_place(told, first)


def assert_equal_but_for_their_place(told: Told, first: Told) -> None:
    assert told.lineage == first.lineage
    assert told.report.candidate == first.report.candidate
    assert told.report.differences == first.report.differences
    assert fetched(told.model.artifact).digest == told.model.digest
    for name in ("train", "validation", "test"):
        kept, whole = (read_parquet(t.splits.table(name)) for t in (told, first))
        assert kept.equals(whole), name
    kept, whole = (read_parquet(t.clean.quarantine) for t in (told, first))
    assert kept.drop("sealed").equals(whole.drop("sealed"))
    kept, whole = (t.snapshot.rows() for t in (told, first))
    assert kept.equals(whole)
