"""The card of a version: every table whole, every verdict in words, every gap named."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import SplitTable
from ray_jobs.evaluation import Evaluation, Slice
from ray_jobs.families import Protocol, family, recipe
from ray_jobs.intervals import Interval
from tasks.card import Facts, card
from tasks.figures import slice_table
from tests.judging import judged

UNDEFINED = Interval(math.nan, math.nan, math.nan)
FIGURE = Interval(0.7, 0.65, 0.75)


def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    rows = {"group": np.repeat(np.arange(20), 5), "target": rng.integers(0, 2, 100)}
    return judged(pl.DataFrame({**rows, "prediction": rng.random(100)}))


MADE = evaluation()


def part(rows: int, auc: Interval = FIGURE) -> Slice:
    return Slice(rows, groups=rows // 2, rate=0.25, metrics={"auc": auc, "log_loss": auc})


def facts(**changes: Any) -> Facts:
    train, validation, test = "train", "validation", "test"
    usual: dict[str, Any] = {
        "recipe": recipe("knowledge"),
        "title": "Knowledge tracing",
        "words": family("knowledge").words,
        "protocol": Protocol("N: from earlier answers", rows="answers"),
        "data": CleanTable("/c", "d" * 64, 2100, 1990, {"conflict": 50}, 40, 20, timed=True),
        "split": SplitTable(
            uri="/s",
            delivered=False,
            rows={train: 1700, validation: 170, test: 120},
            scored={train: 1600, validation: 160, test: 100},
            groups={train: 90, validation: 9, test: 20},
            cut=1.0,
            held_back=0,
        ),
        "evaluation": MADE,
        "training": {"workers": 2, "rows_per_s": 4321.6, "share": 0.123456},
        "lineage": "1ineage",
    }
    return Facts(**{**usual, **changes})


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a card as rows of cells; a bar behind a backslash divides nothing."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in b.splitlines()] for b in blocks]


def row(text: str, first: str) -> list[str]:
    """The cells of the row that begins with a word."""
    cells = [[c.strip() for c in line] for table in tables(text) for line in table]
    return next(line for line in cells if line[0] == first)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab| \n", min_size=1, max_size=5), unique=True, max_size=4))
def test_every_table_keeps_its_columns_whatever_the_content_is_called(names: list[str]) -> None:
    slices = {"skill": {name: part(60) for name in names}} if names else {}
    found = tables(card(facts(evaluation=replace(MADE, slices=slices))))
    assert len(found) == 6 + bool(names)
    for header, rule, *body in found:
        assert {len(line) for line in (rule, *body)} == {len(header)}
    assert sum(len(table) - 2 for table in found[1:-5]) == len(names)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Interval(0.02, 0.01, 0.03), "+0.0200 [+0.0100, +0.0300], better beyond chance."),
        (Interval(-0.02, -0.03, -0.01), "-0.0200 [-0.0300, -0.0100], worse beyond chance."),
        (Interval(0.02, -0.01, 0.05), "+0.0200 [-0.0100, +0.0500], no difference beyond chance."),
    ],
)
def test_the_first_lines_say_what_a_gain_is_worth(gain: Interval, words: str) -> None:
    gains = {"baseline": dict.fromkeys(MADE.metrics, gain)}
    text = card(facts(others={"baseline": MADE}, differences=gains))
    assert f"Against the baseline: {words}" in text
    assert "Against the baseline" not in card(facts())


def test_rivals_stand_beside_the_version_with_their_own_figures() -> None:
    rivals = {
        who: replace(MADE, metrics=dict.fromkeys(MADE.metrics, Interval(value, value, value)))
        for who, value in (("baseline", 0.25), ("champion", 0.5))
    }
    gains = {
        who: dict.fromkeys(MADE.metrics, Interval(value, value, value))
        for who, value in (("baseline", 0.125), ("champion", -0.375))
    }
    text = card(facts(others=rivals, differences=gains))
    assert row(text, "figure")[1:] == [
        "this version", "baseline", "champion", "minus baseline", "minus champion",
    ]  # fmt: skip
    rivals_say, gains_say = ["0.2500", "0.5000"], ["+0.1250", "-0.3750"]
    for title in ("AUC (higher is better)", "Log loss (lower is better)"):
        assert [cell.split()[0] for cell in row(text, title)[2:]] == rivals_say + gains_say


def test_a_figure_of_one_learner_has_no_bounds() -> None:
    alone = {name: Interval(0.8, math.nan, math.nan) for name in MADE.metrics}
    text = card(facts(evaluation=replace(MADE, metrics=alone)))
    assert "**AUC 0.8000** on 100 answers" in text
    assert "nan" not in text


def test_slices_too_small_are_shown_without_figures_and_named_among_the_limits() -> None:
    slices = {"skill_count": {"1": part(60), "3+": part(4, UNDEFINED)}, "item": {"new": part(80)}}
    text = card(facts(evaluation=replace(MADE, slices=slices)))
    assert "- Not measured, for want of rows: skill count = 3+.\n" in text
    assert row(text, "skill count")[1:] == [
        "1",
        "60",
        "30",
        "25.0% right answers",
        *["0.7000 [0.6500, 0.7500]"] * 2,
    ]
    assert "| skill count | 3+ | 4 | 2 | 25.0% right answers | – | – |" in text
    whole = card(facts(evaluation=replace(MADE, slices={"item": {"new": part(80)}})))
    assert "Not measured" not in whole
    assert "Not divided." in card(facts())


def test_predictions_stand_before_what_was_observed() -> None:
    first = MADE.calibration[0]
    cells = row(card(facts()), f"{first.prediction:.3f}")
    assert cells == [f"{first.prediction:.3f}", f"{first.target:.3f}", str(first.rows)]


def test_data_and_splits_are_counted_by_name() -> None:
    text = card(facts())
    counts = {"read": "2,100", "merged into another row": "40", "delivered again": "20"}
    assert {name: row(text, name)[1] for name in counts} == counts
    assert row(text, "test")[1:] == ["120", "100", "20"]
    assert "Groups divided by salted hash." in text
    given_ = replace(facts().split, delivered=True)
    assert "The data came with this split." in card(facts(split=given_))


def test_a_card_names_settings_seed_and_the_code_that_ran() -> None:
    text = card(facts(recipe=replace(recipe("knowledge"), seed=7)))
    assert row(text, "`spec.name`")[1] == "lstm"
    assert row(text, "`epochs`")[1] == "9"
    assert row(text, "`seed`")[1] == row(text, "seed")[1] == "7"
    assert (row(text, "rows per s")[1], row(text, "share")[1]) == ("4,322", "0.1235")
    assert row(text, "code")[1] == "package, version unknown"
    ran = {"mlflow.source.git.commit": "abc", "lyceum.version": "1.2"}
    clean = card(facts(code={**ran, "mlflow.source.git.dirty": "false"}))
    assert row(clean, "code")[1] == "commit `abc`, version 1.2"
    dirty = card(facts(code={**ran, "mlflow.source.git.dirty": "true"}))
    assert row(dirty, "code")[1] == "commit `abc` with uncommitted changes, version 1.2"


def test_the_table_of_slices_is_flat_and_empty_where_nothing_is_known() -> None:
    slices = {"item": {"new": part(80), "met": part(4, UNDEFINED)}}
    first, second = slice_table(replace(MADE, slices=slices)).to_dicts()
    known = {"slice": "item", "value": "new", "rows": 80, "groups": 40, "rate": 0.25}
    figures = {"auc": 0.7, "auc_low": 0.65, "auc_high": 0.75}
    assert (known | figures).items() <= first.items()
    assert (second["groups"], second["auc"], second["log_loss_high"]) == (2, None, None)
