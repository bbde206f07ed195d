"""What the report of a model rests on: who was fitted to what, and judged on which answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from ray_jobs import store
from ray_jobs.artifact import Artifact, fetched
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import StoreError
from ray_jobs.families.knowledge import FAMILY
from ray_jobs.families.knowledge.networks.rasch import Rasch
from ray_jobs.families.knowledge.sample import TRUTH, ceiling
from ray_jobs.predictor import predict
from ray_jobs.serving.release import verify
from ray_jobs.training import submit
from ray_jobs.training.workers import fit_closed_form
from tasks.evaluate import Report, evaluated, predictions, scored_rows, size_mb
from tasks.train import train, training_job
from tests.stages_parts import Told, cluster, in_process, planned, school, tell


@dataclass(frozen=True)
class Judged:
    """A candidate beside a champion that learnt elsewhere, in a world whose truth is known."""

    told: Told
    champion: Told
    truth: Path

    @property
    def test(self) -> pl.DataFrame:
        return read_parquet(self.told.splits.table("test"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "there"))
    # Some items are released after the cut, so that the candidate never met them.
    school(here, answers=30, items=60, late_items=0.2, late_from=0.5).save(here / TRUTH)
    school(there, seed=4, items=48)
    with in_process():
        champion = tell(planned(there))
        # Trained on the past and tested on the future: not every test row is scored.
        run = planned(here, **{"split.until": "0.6", "spec.prior": "30", "spec.rounds": "1"})
        told = tell(run, replace(champion.release, version="7"), str(here))
        yield Judged(told, champion, here)


def fitted(told: Told, spec: Rasch) -> Artifact:
    """A spec fitted by hand to the train split of a run."""
    known, held_out = (read_parquet(told.splits.table(n)) for n in ("train", "validation"))
    vocabulary = FAMILY.vocabulary([known])
    return Artifact(FAMILY, spec, vocabulary, spec.fit(known, held_out, vocabulary), {}, "")


def alone(model: Artifact, test: pl.DataFrame) -> NDArray[np.float64]:
    """Each scored row predicted with its own learner only, in the order of the table."""
    parts = [
        predict(model, FAMILY.examples(learner, model.vocabulary))[0]
        for learner in test.partition_by("learner", maintain_order=True)
    ]
    return np.concatenate(parts).astype(np.float64)


def expected(judged: Judged, who: str) -> NDArray[np.float64]:
    made = {
        "candidate": lambda: fitted(judged.told, Rasch(prior=30, rounds=1)),
        "baseline": lambda: fitted(judged.told, Rasch()),
        "champion": lambda: fitted(judged.champion, Rasch()),
    }
    return alone(made[who](), judged.test)


def evaluation(judged: Judged, who: str) -> Any:
    report = judged.told.report
    return report.candidate if who == "candidate" else report.others[who]


@pytest.mark.parametrize("who", ["candidate", "baseline", "champion"])
def test_figures_are_those_of_a_model_fitted_to_the_past_asked_learner_by_learner(
    judged: Judged, who: str
) -> None:
    target = judged.test.filter("scored")["correct"].to_numpy()
    asked, found = expected(judged, who), evaluation(judged, who)
    # Two answers that are as likely may change places by rounding.
    assert found.metrics["auc"].value == pytest.approx(roc_auc_score(target, asked), abs=2e-3)
    assert found.metrics["log_loss"].value == pytest.approx(log_loss(target, asked), abs=1e-5)


@pytest.mark.parametrize("who", ["baseline", "champion"])
def test_others_are_judged_on_the_very_same_rows_and_the_gain_is_the_candidates(
    judged: Judged, who: str
) -> None:
    report, splits = judged.told.report, judged.told.splits
    other = report.others[who]
    assert other.sample == report.candidate.sample
    assert other.rows == report.candidate.rows == splits.scored["test"] < splits.rows["test"]
    for name, gain in report.differences[who].items():
        difference = report.candidate.metrics[name].value - other.metrics[name].value
        assert gain.value == pytest.approx(difference)
    assert report.differences[who]["auc"].value != 0


def test_what_is_best_possible_is_no_rival_and_better_than_all(judged: Judged) -> None:
    report, test = judged.told.report, judged.test
    assert set(report.others) == {"baseline", "champion"}
    assert report.best_possible is not None
    known = ceiling(judged.truth, test)[test["scored"].to_numpy()]
    auc = roc_auc_score(test.filter("scored")["correct"].to_numpy(), known)
    best = report.best_possible["auc"].value
    assert best == pytest.approx(auc)
    assert best > max(e.metrics["auc"].value for e in (report.candidate, *report.others.values()))


def test_every_slice_divides_the_rows_that_were_evaluated(judged: Judged) -> None:
    candidate = judged.told.report.candidate
    for column in ("history", "item", "skills", "skill_count"):
        parts = candidate.slices[column].values()
        assert sum(part.rows for part in parts) == candidate.rows
        rights = sum(part.rows * part.rate for part in parts)
        assert rights == pytest.approx(candidate.rows * candidate.rate)


def test_a_slice_knows_answers_before_the_cut_and_items_of_the_candidates_training(
    judged: Judged,
) -> None:
    place = pl.int_range(1, pl.len() + 1).over("learner").alias("place")
    scored = judged.test.with_columns(place).filter("scored")
    slices = judged.told.report.candidate.slices
    assert slices["history"]["answers 2-10"].rows == scored["place"].is_between(2, 10).sum()
    assert slices["history"]["answers 11-50"].rows == scored["place"].is_between(11, 50).sum()
    known = read_parquet(judged.told.splits.table("train"))["item"].unique()
    met = scored["item"].is_in(known.implode()).sum()
    assert slices["item"]["met in training"].rows == met < len(scored)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_learners_in_another_order_are_predicted_the_same(
    judged: Judged, data: st.DataObject
) -> None:
    model, test = fetched(judged.told.model.artifact), judged.test
    learners = test.partition_by("learner", maintain_order=True)
    order = data.draw(st.permutations(range(len(learners))))
    shuffled = pl.concat([learners[n] for n in order])
    tables = [
        scored_rows(model, rows)
        .with_columns(
            *rows.filter("scored").select("learner", "position"),
            pl.Series("p", predictions(model, rows)).round(5),
        )
        .sort("learner", "position")
        for rows in (test, shuffled)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0]["group"].equals(
        test.filter("scored").sort("learner", "position")["learner"].alias("group")
    )


def test_golden_requests_are_answered_as_they_were_when_evaluated(judged: Judged) -> None:
    told = judged.told
    verify(fetched(told.model.artifact), told.release)
    others = fetched(judged.champion.model.artifact)
    with pytest.raises(Exception, match="golden request"):
        verify(others, replace(told.release, digest=others.digest))


def test_a_report_comes_back_from_json_with_undefined_figures_as_null(judged: Judged) -> None:
    values = judged.told.report.as_dict()
    text = orjson.dumps(values)
    assert b"NaN" not in text
    small = [p for parts in values["candidate"]["slices"].values() for p in parts.values()]
    assert None in {part["metrics"]["auc"]["value"] for part in small}
    assert Report.from_dict(orjson.loads(text)).as_dict() == values


def test_a_baseline_is_fitted_once_for_a_split(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Rasch, "fit", refuse)
    told = judged.told
    model = replace(told.model, digest="another")
    reseeded = replace(told.run, recipe=replace(told.run.recipe, seed=9))
    report, cached = evaluated.fn(reseeded, told.splits, model, None)
    assert not cached
    assert report.others["baseline"] == told.report.others["baseline"]
    with pytest.raises(AssertionError, match="fitted again"):
        evaluated.fn(told.run, judged.champion.splits, model, None)


def test_another_champion_is_another_report_and_none_is_none(judged: Judged) -> None:
    told = judged.told
    asked = (told.run, told.splits, told.model)
    alone_, _ = evaluated.fn(*asked, None)
    assert set(alone_.others) == set(alone_.differences) == {"baseline"}
    assert alone_.best_possible is None
    itself, cached = evaluated.fn(*asked, told.release)
    assert not cached
    assert itself.best_possible is None
    assert {gain.value for gain in itself.differences["champion"].values()} == {0.0}
    assert evaluated.fn(*asked, told.release)[1]
    known, cached = evaluated.fn(*asked, told.release, str(judged.truth))
    assert (known.best_possible, cached) == (told.report.best_possible, False)


def test_training_is_told_the_whole_recipe_and_never_sees_the_test_split(
    judged: Judged, tmp_path: Path
) -> None:
    told = judged.told
    run = planned(judged.truth, **{"seed": "5", "workers": "3", "budget.epochs": "4"})
    uri = str(tmp_path / "train")
    unseen = replace(told.splits, uri=str(tmp_path / "split"))
    for name in ("train", "validation"):
        store.put_folder(Path(told.splits.table(name)), unseen.table(name))
    job = training_job(run, unseen, told.lineage, uri)
    assert (job.seed, job.workers, job.budget.epochs) == (5, 3, 4)
    fit_closed_form(job.save())
    assert fetched(job.artifact).about["lineage"] == told.lineage
    assert fetched(job.artifact).about["service"] == run.recipe.service


def test_a_model_is_that_of_the_attempt_that_finished_last(
    judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run is killed between its artifact and its manifest, and trains again."""
    monkeypatch.setattr(submit, "wait", lambda _, uri, *__: [fit_closed_form(uri) for _ in "12"])
    run = replace(judged.told.run, settings=replace(judged.told.run.settings, home=tmp_path))
    model, _ = train.fn(run, judged.told.splits, "l1", cluster, print)
    found = fetched(model.artifact)
    assert model.digest == found.digest
    assert model.rows_per_s == found.about["rows_per_s"] > 0
    assert (model.epochs, model.workers) == (1, 1)


def test_the_size_is_that_of_all_files_of_an_artifact(judged: Judged, tmp_path: Path) -> None:
    assert judged.told.report.size_mb == size_mb(judged.told.model.artifact) > 0
    for name, size in (("a", 300_000), ("deep/b", 200_000)):
        store.write_bytes(f"memory://{tmp_path.name}/model/{name}", bytes(size))
        store.write_bytes(str(tmp_path / "model" / name), bytes(size))
    for where in (f"memory://{tmp_path.name}", str(tmp_path)):
        assert size_mb(f"{where}/model") == pytest.approx(0.5)
    with pytest.raises(StoreError, match="nothing at"):
        size_mb(str(tmp_path / "nowhere"))
