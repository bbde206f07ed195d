"""What the plots of a report show: read off the drawings themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes

from ray_jobs.evaluation import Evaluation, Slice
from ray_jobs.intervals import Interval
from ray_jobs.training.events import Event
from tasks import plots
from tests.judging import judged

UNDEFINED = Interval(math.nan, math.nan, math.nan)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    rows = {"group": np.repeat(np.arange(30), 10), "target": rng.integers(0, 2, 300)}
    return judged(pl.DataFrame({**rows, "prediction": rng.random(300) ** 2}))


def part(rows: int, auc: Interval) -> Slice:
    return Slice(rows, groups=9, rate=0.5, metrics={"auc": auc, "log_loss": auc})


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def line(axes: Axes, label: str) -> Any:
    return next(drawn for drawn in axes.lines if str(drawn.get_label()).startswith(label))


def epochs(validation: dict[int, float], attempt: int = 1) -> list[Event]:
    return [
        Event("epoch", attempt, step, {"train_loss": 0.9, "validation_loss": loss})
        for step, loss in validation.items()
    ]


def test_only_what_there_is_is_drawn(evaluation: Evaluation) -> None:
    assert set(plots.draw(evaluation)) == {"roc", "calibration", "probabilities"}
    assert set(plots.draw(evaluation, events=[Event("started", 1)])) == set(plots.draw(evaluation))
    whole = replace(evaluation, slices={"item": {"new": part(60, Interval(0.7, 0.6, 0.8))}})
    assert {"slices", "learning_curves"} <= set(plots.draw(whole, events=epochs({1: 0.5})))


def test_what_nobody_may_overlook_stands_on_every_plot(evaluation: Evaluation) -> None:
    whole = replace(evaluation, slices={"item": {"new": part(60, Interval(0.7, 0.6, 0.8))}})
    for events in ((), epochs({1: 0.5})):
        for name, figure in plots.draw(whole, events=events, aside="it leaks").items():
            assert figure.get_suptitle() == "it leaks", name
    assert {figure.get_suptitle() for figure in plots.draw(whole).values()} == {""}


def test_every_model_is_drawn_under_its_name_with_its_figure(evaluation: Evaluation) -> None:
    worse = {**evaluation.metrics, "auc": Interval(0.25, 0.125, 0.375)}
    worse["calibration_error"] = Interval(0.5, 0.5, 0.5)
    others = {"baseline": replace(evaluation, metrics=worse), "champion": evaluation}
    drawn = plots.draw(evaluation, others=others)
    roc, reliability = drawn["roc"].axes[0], drawn["calibration"].axes[0]
    assert "baseline: AUC 0.250 (0.125 to 0.375)" in legend(roc)
    assert "baseline: mean gap 0.500" in legend(reliability)
    for axes in (roc, reliability):
        assert [text.split(":")[0] for text in legend(axes)][1:] == ["candidate", *others]
        styles = {(str(drawn.get_color()), str(drawn.get_linestyle())) for drawn in axes.lines}
        assert len(styles) == len(axes.lines)


def test_curves_go_through_the_points_of_the_evaluation(evaluation: Evaluation) -> None:
    drawn = plots.draw(evaluation)
    reliability, counts = drawn["calibration"].axes
    points = line(reliability, "candidate").get_xydata()
    np.testing.assert_allclose(points, [(b.prediction, b.target) for b in evaluation.calibration])
    roc = line(drawn["roc"].axes[0], "candidate").get_xydata()
    np.testing.assert_allclose(roc, evaluation.roc)
    bars: Any = counts.collections[0]
    heights = [segment[1][1] for segment in bars.get_segments()]
    assert sum(heights) == evaluation.rows


def test_bars_stand_on_each_other_and_hold_every_row(evaluation: Evaluation) -> None:
    axes = plots.draw(evaluation)["probabilities"].axes[0]
    right, wrong = axes.containers
    rights = round(evaluation.rate * evaluation.rows)
    assert legend(axes) == [
        f"right answers ({rights})",
        f"wrong answers ({evaluation.rows - rights})",
    ]
    tops = [bar.get_y() + bar.get_height() for bar in wrong]
    assert sum(tops) == evaluation.rows
    assert sum(bar.get_height() for bar in right) == rights


def test_one_outcome_alone_has_no_curve_and_no_bounds(evaluation: Evaluation) -> None:
    metrics = {**evaluation.metrics, "auc": Interval(0.5, math.nan, math.nan)}
    axes = plots.roc({"candidate": replace(evaluation, roc=[], metrics=metrics)}).axes[0]
    assert legend(axes)[1] == "candidate: AUC 0.500"
    assert len(line(axes, "candidate").get_xydata()) == 0


def test_the_epoch_that_was_kept_is_the_best_one_validated(evaluation: Evaluation) -> None:
    """In whatever order the events lie; of an epoch done twice the last counts."""
    events = [*epochs({3: 0.6, 1: 0.7, 2: 0.1}), *epochs({2: 0.5, 4: 0.8}, attempt=2)]
    axes = plots.draw(evaluation, events=events)["learning_curves"].axes[0]
    assert legend(axes)[-1] == "kept: epoch 2"
    assert line(axes, "kept").get_xdata()[0] == 2
    np.testing.assert_allclose(
        line(axes, "validation").get_xydata(), [(1, 0.7), (2, 0.5), (3, 0.6), (4, 0.8)]
    )


def test_slices_are_drawn_with_their_bounds_and_small_ones_only_named(
    evaluation: Evaluation,
) -> None:
    parts = {"new": part(60, Interval(0.7, 0.65, 0.8)), "met": part(1200, Interval(0.5, 0.4, 0.6))}
    # One learner has a figure, yet no bounds; so few have neither.
    one_learner, few = part(70, Interval(0.6, math.nan, math.nan)), part(4, UNDEFINED)
    mine = replace(evaluation, slices={"item": {**parts, "own": one_learner, "rare": few}})
    one = replace(evaluation, slices={"item": {"new": part(60, Interval(0.3, 0.3, 0.3))}})
    none = replace(evaluation, slices={"item": {"rare": few}})
    axes = plots.slices({"candidate": mine, "baseline": one, "champion": none}).axes[0]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels[:2] == ["item: new (n=60)", "item: met (n=1,200)"]
    assert labels[2:] == ["item: own (n=70, too few)", "item: rare (n=4, too few)"]
    assert legend(axes)[1:] == ["candidate", "baseline"]
    assert legend(axes)[0] == f"all: {evaluation.metrics['auc'].value:.3f}"
    candidate, baseline = axes.containers
    points, _, (bars,) = candidate
    assert points.get_xdata().tolist() == [0.7, 0.5]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0.65, 0.8], [0.4, 0.6]])
    assert baseline[0].get_xdata().tolist() == [0.3]
    assert axes.yaxis_inverted()  # the first slice stands at the top, as in the report
