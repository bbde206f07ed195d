"""A whole table scored: each row once, as the predictor says it, whatever was killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ray_jobs import artifact, scoring, store
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet, write_part
from ray_jobs.errors import ServiceError, UsageError
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.predictor import predict
from ray_jobs.scoring import Piece, Scoring
from tests.knowledge_parts import KNOWLEDGE, VOCABULARY, arbitrary
from tests.test_knowledge_behaviour import school

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = [school(seed, learners=7, length=9) for seed in range(2)]


@pytest.fixture
def asked(tmp_path: Path) -> Scoring:
    """A table in two parts, of fourteen learners, and an artifact."""
    table = tmp_path / "table"
    for number, part in enumerate(PARTS):
        rows = part.with_columns(
            learner=pl.format("{} of {}", "learner", pl.lit(number)),
            position=pl.int_range(pl.len()),
            bucket=pl.lit(7, pl.UInt64),
            split=pl.lit(None, pl.String),
        )
        write_part(str(table), number, rows)
    model = arbitrary()
    digest = artifact.write(
        tmp_path / "artifact",
        kind="knowledge",
        spec=model.spec,
        vocabulary=VOCABULARY,
        module=model.module,
        about={},
    )
    out = str(tmp_path / "out")
    return Scoring(str(tmp_path / "artifact"), digest, str(table), "content", out)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PIECE_ROWS", 30)  # three learners, and some


Each = Callable[[list[Piece]], Iterator[Any]]


def here(asked: Scoring, *, at_most: int = 10**6) -> Each:
    """Score in this process, and be killed after so many pieces."""

    def each(todo: list[Piece]) -> Iterator[Any]:
        for count, piece in enumerate(todo):
            if count == at_most:
                raise KeyboardInterrupt
            yield scoring.score(asked, piece)

    return each


def made(asked: Scoring, name: str) -> pl.DataFrame:
    return read_parquet(store.join(asked.out, name))


def test_every_row_is_scored_once_as_the_predictor_says(asked: Scoring) -> None:
    rows = scoring.run(asked, "learner", here(asked))
    told, table = made(asked, scoring.PREDICTIONS), read_parquet(asked.table)
    assert rows[scoring.PREDICTIONS] == len(told) == len(table)
    assert told.columns == [
        "learner",
        "item",
        "skills",
        "correct",
        "time",
        "position",
        "probability",
    ]
    assert told.drop("probability").equals(table.select(told.columns[:-1]))
    known = np.concatenate(predict(arbitrary(), KNOWLEDGE.examples(table, VOCABULARY)))
    np.testing.assert_allclose(told["probability"], known, atol=1e-5)


def test_mastery_is_what_the_service_would_say(asked: Scoring) -> None:
    rows = scoring.run(asked, "learner", here(asked))
    told, verb, model = made(asked, "mastery"), VERBS["mastery"], arbitrary()
    assert rows["mastery"] == len(told)
    expected = []
    for (learner,), answers in read_parquet(asked.table).group_by("learner", maintain_order=True):
        history = answers.select("item", "skills", "correct", "time").to_dicts()
        request = verb.request.model_validate({"history": history})
        answer = verb.answer(
            request, predict(model, verb.examples(request, VOCABULARY)), VOCABULARY
        )
        expected += [{"learner": learner, **of} for of in answer["mastery"]]
    assert told.columns == ["learner", "skill", "level", "answers", "correct", "last"]
    assert len(expected) == len(told)
    for ours, service in zip(told.to_dicts(), expected, strict=True):
        assert ours.pop("level") == pytest.approx(service.pop("level"), abs=1e-5)
        for more in ("trend", "interval"):
            service.pop(more)
        assert ours == service


def test_learners_without_any_skill_have_predictions_and_no_mastery(asked: Scoring) -> None:
    bare = read_parquet(asked.table).with_columns(skills=pl.lit([], pl.List(pl.String)))
    of = replace(asked, table=f"{asked.table}-bare")
    write_part(of.table, 0, bare)
    assert scoring.run(of, "learner", here(of)) == {scoring.PREDICTIONS: len(bare), "mastery": 0}


def test_no_learner_stands_in_two_pieces_and_no_row_in_none(asked: Scoring) -> None:
    found = scoring.pieces(asked.table, "learner")
    assert [(p.start, p.rows) for p in found] == [(0, 27), (27, 27), (54, 9)] * 2
    assert [p.number for p in found] == list(range(6))


def test_a_learner_with_more_answers_than_a_piece_is_one_of_its_own(
    asked: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIECE_ROWS", 4)
    found = scoring.pieces(asked.table, "learner")
    assert [(p.start, p.rows) for p in found] == [(9 * n, 9) for n in range(7)] * 2


@pytest.mark.parametrize("after", [0, 1, 4])
def test_what_was_killed_goes_on_and_ends_as_what_was_not(asked: Scoring, after: int) -> None:
    whole = replace(asked, out=f"{asked.out}-whole")
    expected = scoring.run(whole, "learner", here(whole))
    with pytest.raises(KeyboardInterrupt):
        scoring.run(asked, "learner", here(asked, at_most=after))
    assert scoring.known(asked) is None
    again: list[int] = []

    def each(todo: list[Piece]) -> Iterator[Any]:
        again.extend(piece.number for piece in todo)
        return here(asked)(todo)

    assert scoring.run(asked, "learner", each) == expected
    assert again == list(range(after, 6))
    for name in expected:
        assert made(asked, name).equals(made(whole, name))


def test_what_is_finished_is_known_and_leaves_no_notes(asked: Scoring) -> None:
    rows = scoring.run(asked, "learner", here(asked))
    scoring.finish(asked, {"rows": rows})
    assert scoring.known(asked) == {"rows": rows}
    assert not [name for name in store.sizes(asked.out) if name.startswith(scoring.NOTES)]


@pytest.mark.parametrize("change", [{"digest": "other"}, {"content": "other"}])
def test_a_folder_of_another_version_or_of_other_data_is_left_alone(
    asked: Scoring, change: dict[str, str]
) -> None:
    scoring.finish(asked, {"rows": scoring.run(asked, "learner", here(asked))})
    before = store.sizes(asked.out)
    other = replace(asked, **change)
    for attempt in (
        lambda: scoring.known(other),
        lambda: scoring.run(other, "learner", here(other)),
    ):
        with pytest.raises(UsageError, match="scores by another version, or of other data"):
            attempt()
    assert store.sizes(asked.out) == before


def test_a_folder_with_files_of_somebody_else_is_left_alone(asked: Scoring) -> None:
    store.write_bytes(store.join(asked.out, "thesis.docx"), b"years of work")
    with pytest.raises(UsageError, match="name a folder that is empty or new"):
        scoring.run(asked, "learner", here(asked))
    assert set(store.sizes(asked.out)) == {"thesis.docx"}


def test_an_artifact_that_is_not_the_registered_one_scores_nothing(asked: Scoring) -> None:
    other = replace(asked, digest="0" * 64)
    with pytest.raises(ServiceError, match="was registered"):
        scoring.run(other, "learner", here(other))
    assert isinstance(artifact.read(Path(asked.model)), Artifact)
