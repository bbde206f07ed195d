"""Protocol K1 beside N: a row per skill of an answer, what that leaks, and that all say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given

from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet
from ray_jobs.errors import UsageError
from ray_jobs.evaluation import evaluate
from ray_jobs.families.knowledge import protocol
from ray_jobs.families.knowledge.counts import COLUMNS
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.table import CLEAN, PROTOCOLS, Columns
from ray_jobs.predictor import predict
from tasks.card import card
from tasks.gate import Verdict, figure_checks
from tasks.record import facts_of, recipe_tags
from tasks.report import document, markdown
from tests.data_parts import (
    DIRTY,
    GOOD,
    KEY,
    SOME,
    TIMED,
    Row,
    clean_table,
    cleaned,
    csv,
    delivered,
)
from tests.knowledge_parts import KNOWLEDGE
from tests.stages_parts import Told, in_process, outcome_of, planned, school, tell
from tests.test_knowledge_rules import Row as Raw
from tests.test_knowledge_rules import cleaned as ruled

K1 = Columns(protocol="K1")
BARRED = protocol.K1.barred
LOG: list[Row] = [
    *TIMED,
    ("ann", "i1", "s2", "1", "10"),
    ("ann", "i1", "s1", "1", "10"),
    ("ann", "i2", "s3;s1", "0", "20"),
    ("ann", "i1", "", "1", "30"),
    ("ann", "i1", "", "1", "30"),  # delivered again
    ("bob", "i2", "s1", "0.5", "10"),
]


def apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table under N as K1 has them, one at a time."""
    return [
        {**row, "skills": one}
        for row in rows
        for one in [[skill] for skill in row["skills"]] or [[]]
    ]


@SOME
@given(GOOD | DIRTY)
def test_an_answer_is_a_row_per_skill_with_all_else_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    snapshot = delivered(folder, {"log.csv": csv(rows)})
    n = clean_table(snapshot, str(folder / "n"))
    k1 = clean_table(snapshot, str(folder / "k1"), K1)
    answers, expanded = read_parquet(n.table), read_parquet(k1.table)
    assert expanded.schema == CLEAN
    assert expanded.rows(named=True) == apart(answers.rows(named=True))
    assert k1.counts == n.counts, "whatever stands apart was read once"
    assert len(expanded) == k1.kept + k1.expanded
    assert (n.expanded, len(answers)) == (0, n.kept)
    learners = [name for name, _ in groupby(expanded["learner"])]
    assert len(learners) == len(set(learners)), "a learner's rows lie apart"


def test_without_times_rows_stand_as_they_came(tmp_path: Path) -> None:
    rows: list[Raw] = [
        ("a", "i1", "s2", "1", ""),
        ("b", "i9", "s1", "0", ""),
        ("a", "i1", "s1", "1", ""),  # under N a part of the row before
        ("a", "i1", "s2", "1", ""),
        ("a", "i2", "s3;s1", "0", ""),
        ("a", "i2", "", "1", ""),
    ]
    under_n = ruled(rows, timed=False)
    assert (len(under_n.table), under_n.merged) == (4, 2)
    found = ruled(rows, timed=False, columns=K1)
    of_a = found.table.filter(pl.col("learner") == "a")
    assert of_a.select("position", "item", "skills", "correct").rows() == [
        (0, "i1", ["s2"], 1.0),
        (2, "i1", ["s1"], 1.0),
        (3, "i1", ["s2"], 1.0),
        (4, "i2", ["s1"], 0.0),
        (4, "i2", ["s3"], 0.0),
        (5, "i2", [], 1.0),
    ]
    assert (found.merged, found.expanded) == (0, 1)


def test_under_n_the_table_is_what_it_was_before_there_was_another(tmp_path: Path) -> None:
    table = cleaned(tmp_path, {"log.csv": csv(LOG)})
    ann, bob = KEY.pseudonym("ann"), KEY.pseudonym("bob")
    rows = read_parquet(table.table).filter(pl.col("learner").is_in([ann, bob])).sort("learner")
    told = rows.select("learner", "item", "skills", "correct", "time", "position").rows()
    assert sorted(told) == sorted(
        [
            (ann, "i1", ["s1", "s2"], 1.0, 10.0, 0),
            (ann, "i2", ["s1", "s3"], 0.0, 20.0, 1),
            (ann, "i1", [], 1.0, 30.0, 2),
            (bob, "i2", ["s1"], 0.5, 10.0, 0),
        ]
    )
    assert (table.notes, table.merged, table.repeats) == ([], 1, 1)
    assert Columns() == Columns(protocol="N")


def test_what_was_made_of_the_rows_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    table = cleaned(tmp_path, {"log.csv": csv(LOG)}, K1)
    assert (table.read, table.kept, table.merged, table.repeats) == (8, 6, 1, 1)
    assert table.expanded == 2
    assert [note for note in table.notes if "K1" in note]
    assert "clean: 2 rows more than are kept stand in the table" in caplog.text


def test_a_protocol_that_is_none_is_refused_and_each_has_its_words() -> None:
    with pytest.raises(UsageError, match=r"columns.protocol='Q': expected one of N, K1"):
        Columns(protocol="Q")
    for name in PROTOCOLS:
        found = KNOWLEDGE.protocol(Columns(protocol=name))
        assert found.words.startswith(f"{name}: ")
        assert bool(found.barred) == (name != "N")


@dataclass(frozen=True)
class Coins:
    """Learners who toss a coin for each item, once, some items under two skills."""

    train: pl.DataFrame
    test: pl.DataFrame

    @classmethod
    def of(cls, columns: Columns) -> Coins:
        random, rows = np.random.default_rng(0), list[Raw]()
        for learner in range(60):
            for turn, item in enumerate(random.permutation(20)):
                skills = "s1;s2" if item % 2 else "s3"
                coin = str(random.integers(2))
                rows.append((f"l{learner:02}", f"i{item}", skills, coin, str(turn)))
        table = ruled(rows, timed=True, columns=columns).table
        first = pl.col("learner") < "l40"
        return cls(table.filter(first), table.filter(~first))

    def auc(self, chances: np.ndarray[Any, Any]) -> float:
        rows = self.test.select(group="learner", target=pl.col("correct").cast(pl.Float64))
        target = KNOWLEDGE.target(None)
        return evaluate(rows, chances, target, metrics=("auc",)).metrics["auc"].value


def test_to_repeat_what_the_item_brought_last_is_a_leak_under_k1_and_impossible_under_n() -> None:
    found = {}
    for name in PROTOCOLS:
        coins = Coins.of(Columns(protocol=name))
        vocabulary = KNOWLEDGE.vocabulary([coins.train])
        batch = KNOWLEDGE.collate(KNOWLEDGE.examples(coins.test, vocabulary), vocabulary)
        counts = dict(zip(COLUMNS, batch.counts[batch.mask].T.numpy(), strict=True))
        found[name] = coins.auc((counts["item_last"].astype(np.float64) + 1) / 2)
        again = counts["item_last"] != 0
        assert again.any() == (name == "K1"), "nobody meets an item twice"
        assert (counts["item_hours"][again] == 0).all()
        assert (counts["item_gap"][again] == np.float32(np.log(2))).all(), "the row before"
    assert found["N"] == 0.5
    assert found["K1"] > 0.7


@pytest.mark.usefixtures("one_thread")
def test_a_model_that_is_trained_on_coins_knows_them_under_k1_alone() -> None:
    found = {}
    for name in PROTOCOLS:
        coins = Coins.of(Columns(protocol=name))
        vocabulary = KNOWLEDGE.vocabulary([coins.train])
        spec = SPECS["logistic"]()
        model = Artifact(
            KNOWLEDGE, spec, vocabulary, spec.fit(coins.train, coins.test, vocabulary), {}, ""
        )
        outcomes = predict(model, KNOWLEDGE.examples(coins.test, vocabulary))
        found[name] = coins.auc(np.concatenate(outcomes).astype(np.float64))
    assert 0.4 < found["N"] < 0.6
    assert found["K1"] > 0.7


@pytest.fixture(scope="module")
def tolds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    """The same recipe on the same log, under each protocol."""
    folder = tmp_path_factory.mktemp("school")
    school(folder)
    with in_process():
        yield {name: tell(planned(folder, **{"columns.protocol": name})) for name in ("K1", "N")}


def test_the_same_learners_are_measured_on_other_rows_by_another_model(
    tolds: dict[str, Told],
) -> None:
    k1, n = tolds["K1"], tolds["N"]
    assert k1.clean.digest == n.clean.digest
    assert k1.lineage != n.lineage
    assert k1.model.digest != n.model.digest
    for name in ("train", "validation", "test"):
        expanded, answers = (read_parquet(told.splits.table(name)) for told in (k1, n))
        assert expanded.drop("split").rows(named=True) == apart(
            answers.drop("split").rows(named=True)
        )
        assert len(expanded) > len(answers), "the school has items under several skills"
    assert sum(k1.splits.rows.values()) == k1.clean.kept + k1.clean.expanded


def said(told: Told) -> dict[str, str]:
    """Whatever shows a figure of a run, as text."""
    verdict = Verdict(figure_checks(told.run, told.report))
    outcome = outcome_of(told, verdict=verdict, version="1")
    facts = facts_of(told.run, told.clean, told.splits, told.model, told.report, told.lineage)
    return {
        "report": document(outcome)["protocol"],
        "gate": str(document(outcome)["gate"]),
        "page": markdown(outcome),
        "card": card(facts),
        "MLflow": recipe_tags(told.run)["protocol"],
        "release": told.release.card["protocol"],
        "data report": Path(told.described.document).read_text(),
        "data page": Path(told.described.page).read_text(),
        "data in Prefect": told.described.summary,
    }


def test_whatever_shows_a_figure_names_k1_and_nothing_does_under_n(
    tolds: dict[str, Told],
) -> None:
    for place, text in said(tolds["K1"]).items():
        assert "K1" in text, place
    for place, text in said(tolds["N"]).items():
        assert "K1" not in text, place
        assert place == "gate" or "data" in place or "N: one row per answer" in text, place
    assert f"**It may not serve**: {BARRED}." in said(tolds["K1"])["card"]


def test_the_gate_stops_k1_and_its_release_may_not_serve(tolds: dict[str, Told]) -> None:
    def stopped(name: str) -> list[str]:
        checks = figure_checks(tolds[name].run, tolds[name].report)
        return [check.reason for check in checks if check.name == "protocol" and not check.passed]

    assert stopped("K1") == [BARRED]
    assert stopped("N") == []
    tolds["N"].release.refuse_barred()
    with pytest.raises(UsageError, match=r"may not serve: protocol K1"):
        tolds["K1"].release.refuse_barred()
