"""How well tables are predicted: real data, beside the models that others would reach for.

`pytest -s tests/test_tabular_accuracy.py` prints the figures that the README shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ray_jobs.evaluation import Evaluation, compare, evaluate
from ray_jobs.families import recipe
from ray_jobs.families.tabular.batch import Rows
from ray_jobs.families.tabular.networks import Boosting
from ray_jobs.families.tabular.networks.fitting import predicted, whole
from ray_jobs.families.tabular.table import PREFIX
from ray_jobs.families.tabular.vocabulary import Vocabulary
from ray_jobs.target import Array, Target
from tests.tabular_parts import cleaned

SHARED = Path(__file__).parents[2] / "shared" / "data"
SERVED: Any = recipe("tabular").spec
SEEDS = (0, 1, 2)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not SHARED.exists(), reason="the data sets are not on this machine"),
]


def ours(spec: Any, train: pl.DataFrame, test: pl.DataFrame) -> Array:
    vocabulary = Vocabulary.of([train])
    torch.manual_seed(0)
    module = spec.fit(train, train.head(0), vocabulary)
    return predicted(module, whole(Rows(test, vocabulary), vocabulary))


def told(what: str, name: str, found: Evaluation) -> None:
    figure = found.headline
    print(
        f"{what}\t{name}\t{found.of_kind.headline} {figure.value:.4f} "
        f"({figure.low:.4f} to {figure.high:.4f})"
    )


@pytest.mark.parametrize(("file", "least"), [("datatest.txt", 0.991), ("datatest2.txt", 0.995)])
def test_whether_a_room_is_occupied(file: str, least: float) -> None:
    found = occupancy()[file]
    told(f"occupancy, {file}", SERVED.name, found)
    assert found.headline.value >= least


@cache
def occupancy() -> dict[str, Evaluation]:
    path = SHARED / "uci_occupancy"
    table = cleaned(path, timed=True, label="Occupancy").table
    train = table.filter(pl.col("file").str.contains("datatraining"))
    found = {}
    for file in ("datatest.txt", "datatest2.txt"):
        test = table.filter(pl.col("file").str.contains(f"{file}.gz", literal=True))
        rows = judged_rows(test, (test["label"] == "1").cast(pl.Float64))
        # Minutes are alike: an hour of them is drawn together.
        rows = rows.with_columns(group=(test["time"] // 3600))
        found[file] = evaluate(rows, ours(SERVED, train, test), Target("binary", ("0", "1")))
    return found


def judged_rows(table: pl.DataFrame, target: pl.Series) -> pl.DataFrame:
    return table.select("group").with_columns(target.alias("target"))


def encoder() -> Any:
    categories = make_column_selector(dtype_include=object)
    return make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", drop="if_binary"), categories),
        (StandardScaler(), make_column_selector(dtype_exclude=object)),
    )


OTHERS: dict[str, Callable[[], Any]] = {
    "ridge": lambda: RidgeCV(np.logspace(-2, 3, 20)),
    "random forest": lambda: RandomForestRegressor(300, random_state=0, n_jobs=2),
    "gradient boosting": lambda: GradientBoostingRegressor(random_state=0),
}


def theirs(model: Any, train: pl.DataFrame, test: pl.DataFrame) -> Array:
    fitted = make_pipeline(encoder(), model).fit(frame(train), train["label"].to_numpy())
    values: Array = fitted.predict(frame(test))
    return values


def frame(table: pl.DataFrame) -> pd.DataFrame:
    found = table.select(pl.col(f"^{PREFIX}.*$")).to_pandas()
    texts = [c for c in found.columns if not pd.api.types.is_numeric_dtype(found[c])]
    return found.astype(dict.fromkeys(texts, object))


Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


@pytest.mark.parametrize("ignore", ["", "G1,G2"], ids=["earlier grades", "without"])
@pytest.mark.parametrize("course", ["mat", "por"])
def test_grades_are_predicted_no_worse_than_by_the_best_of_three(course: str, ignore: str) -> None:
    path = SHARED / "uci_student" / f"student-{course}.csv"
    table = cleaned(path, label="G3", ignore=ignore).table
    rows = judged_rows(pl.concat([table] * len(SEEDS)), pl.concat([table["label"]] * len(SEEDS)))
    folds = [
        list(KFold(5, shuffle=True, random_state=seed).split(np.zeros(len(table))))
        for seed in SEEDS
    ]

    def crossed(fit: Callable[[pl.DataFrame, pl.DataFrame], Array]) -> Evaluation:
        """Each row as predicted by models that were trained without it, once for each seed."""
        values = []
        for divided in folds:
            mine = np.empty(len(table))
            for train, test in divided:
                mine[test] = fit(table[train], table[test])
            values.append(mine)
        return evaluate(rows, np.concatenate(values), Target("number"))

    served = crossed(lambda train, test: ours(SERVED, train, test))
    what = f"{course}, {'without earlier grades' if ignore else 'with earlier grades'}"
    told(what, SERVED.name, served)
    others = {
        name: crossed(lambda train, test, make=make: theirs(make(), train, test))  # type: ignore[misc]
        for name, make in OTHERS.items()
    }
    for name, other in others.items():
        told(what, name, other)
    best = max(others.values(), key=lambda e: e.headline.value)
    gain = compare(served, best)["r2"]
    print(f"{what}\tagainst the best\t{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})")
    assert served.headline.value >= best.headline.value


@pytest.mark.parametrize("day", [0, 60], ids=["at the start", "after the first assessments"])
def test_whether_a_course_is_passed(day: int) -> None:
    table = cleaned(SHARED / "oulad", day=day).table
    students = table["group"].rank("dense").to_numpy().astype(np.int64) - 1
    tested = np.random.default_rng(0).random(students.max() + 1)[students] < 0.2
    train, test = (table.filter(pl.Series(part)) for part in (~tested, tested))
    rows = judged_rows(test, (test["label"] == "yes").cast(pl.Float64))
    target = Target("binary", ("no", "yes"))
    served, boosting = (
        evaluate(rows, ours(spec, train, test), target) for spec in (SERVED, Boosting())
    )
    for found, name in ((served, SERVED.name), (boosting, "boosting")):
        told(f"OULAD, day {day}", name, found)
    assert served.headline.value >= boosting.headline.value - 0.005
