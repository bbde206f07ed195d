"""An outcome is one of the version that predicted, and an id given out is always taken back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ray_jobs.families import family
from ray_jobs.families.tabular import api as tabular
from ray_jobs.families.tabular.vocabulary import Category, Vocabulary
from ray_jobs.serving import outcomes, receipt
from ray_jobs.serving.feedback import FeedbackRequest, Outcomes, Recorder
from ray_jobs.serving.problem import Problem
from ray_jobs.serving.release import Release
from ray_jobs.serving.surface import House, Surface
from ray_jobs.target import Target
from ray_jobs.verb import Logged
from tests.family_parts import taught
from tests.feedback_parts import kept
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
    asking,
    question,
)  # fmt: skip


def told_by(version: str, *names: str, kind: str = "classes") -> tuple[Logged, Outcomes]:
    """What a version that knows these outcomes logs, and takes."""
    category = Category("about", ("a",), (1.0,), 0.0)
    words = Vocabulary(Target(kind, names), 0.0, 1.0, (), (category,))
    logged = tabular.verbs(words)["predict"].logged
    assert logged
    return logged, Outcomes(KEY, SERVICE, version, logged)


def given_out(version: str, predictions: list[Any], target: Target | None) -> str:
    note = receipt.made(
        KEY,
        service=SERVICE,
        version=version,
        learner=None,
        predictions=predictions,
        rows=[{"about": "a"}],
        target=target,
    )
    return receipt.signed(KEY, note.encoded())


def kept_of(taker: Outcomes, id_: str, outcome: float | str) -> dict[str, Any]:
    (row,) = taker.rows(FeedbackRequest(prediction_id=id_, outcomes=[outcome]), by="")
    return row


def test_an_outcome_is_one_of_those_that_the_version_knew_which_predicted(tmp_path: Path) -> None:
    first, _ = told_by("1", "fail", "pass", kind="binary")
    second, later = told_by("2", "fail", "merit", "pass")
    third, latest = told_by("3", "fail", "pass", kind="binary")
    rows = [
        kept_of(later, given_out("1", [0.75], first.target), "pass"),
        kept_of(latest, given_out("2", [[0.2, 0.3, 0.5]], second.target), "merit"),
        kept_of(latest, given_out("3", [0.75], third.target), "fail"),
    ]
    told = [(row["version"], row["kind"], row["truth"]) for row in rows]
    assert told == [("1", "binary", 1), ("2", "classes", 1), ("3", "binary", 0)]
    assert orjson.loads(rows[1]["row"]) == {"about": "a", "label": "merit"}
    asyncio.run(Recorder(str(tmp_path), SERVICE).record(rows))
    fared = outcomes.fared(outcomes.gathered(str(tmp_path), SERVICE))
    brier = {one.version: one.figures["brier"].value for one in fared}
    assert brier["1"] == pytest.approx(0.25**2)
    assert brier["3"] == pytest.approx(0.75**2)
    with pytest.raises(Problem, match="expected one of fail, pass"):
        kept_of(later, given_out("1", [0.75], first.target), "merit")


def test_after_a_swap_an_outcome_is_one_of_the_version_that_predicted(tmp_path: Path) -> None:
    model = taught("tabular", family("tabular").baseline().name)
    names = model.vocabulary.target.outcomes
    known = replace(model.vocabulary, target=Target("classes", ("a new one", *names)))
    house = House(recorder=Recorder(str(tmp_path), SERVICE))
    before, after = (
        Surface(
            replace(model, vocabulary=words),
            Release(SERVICE, "tabular", version * 32, "somewhere", "", [], {}, version=version),
            KEY,
            house=house,
        )
        for version, words in (("1", model.vocabulary), ("2", known))
    )
    body = before.verbs["predict"].request.model_json_schema()["examples"][0]
    with asking(before) as one, asking(after) as other:
        id_ = one("POST", "v1/predict", body).json()["prediction_id"]
        for outcome, status in ((names[1], 200), ("a new one", 422)):
            told = {"prediction_id": id_, "outcomes": [outcome]}
            assert other("POST", "v1/feedback", told).status_code == status
    (row,) = kept(tmp_path, "feedback").to_dicts()
    assert (row["version"], row["kind"], row["truth"]) == ("1", "binary", 1.0)


def test_an_id_without_outcomes_is_taken_by_its_own_version_and_refused_by_others() -> None:
    _, own = told_by("1", "fail", "pass", kind="binary")
    _, later = told_by("2", "fail", "merit", "pass")
    _, number = told_by("2", kind="number")
    earlier = given_out("1", [0.75], None)
    assert kept_of(own, earlier, "pass")["truth"] == 1
    assert kept_of(number, earlier, 0.5)["truth"] == 0.5
    with pytest.raises(Problem, match="given out by an earlier Lyceum"):
        kept_of(later, earlier, "pass")


def test_an_id_that_is_given_out_is_taken_back_however_long_the_request(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    long = {"item": "\U0001f600" * 512, "skills": ["\U0001f600" * 512] * 8}
    longest = {**long, "skills": ["\U0001f600" * 512] * 64}
    short = {"item": "i", "skills": []}
    cases = [
        ([long] * 16, 1),
        ([longest, short], 1),
        ([short, longest, short], 1),
        ([short] * 20, 16),
    ]
    for candidates, noted in cases:
        told = ask("POST", "v1/predict", {"history": [], "candidates": candidates}).json()
        id_ = told["prediction_id"]
        assert len(id_) <= receipt.LONGEST
        body = {"prediction_id": id_, "outcomes": [1] * noted}
        assert ask("POST", "v1/feedback", body).json()["recorded"] == noted
    rows = kept(tmp_path, "feedback")
    assert rows["row"].null_count() == 1, "one is too long to learn from"
    log = outcomes.as_log(str(tmp_path), SERVICE, outcomes.gathered(str(tmp_path), SERVICE))
    assert len(Path(log).read_bytes().splitlines()) == len(rows) - 1
    assert app.house.journal
    app.house.journal.flush()
    assert kept(tmp_path, "predictions")["row"].null_count() == 1


def test_no_request_names_a_skill_that_a_log_may_not(ask: Ask) -> None:
    for length, status in ((512, 200), (513, 422)):
        candidate = {"item": "i", "skills": ["s" * length]}
        for body in (
            {"history": [], "candidates": [candidate]},
            {"history": [{**candidate, "correct": 1}], "candidates": [question(0)]},
        ):
            assert ask("POST", "v1/predict", body).status_code == status
