"""The plots of a report: figures to look at, drawn without any global state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ray_jobs.evaluation import Evaluation, Slice
from ray_jobs.intervals import Interval
from ray_jobs.training.events import Event, by_step
from tasks.drawing import BLUE, GREY, ORANGE, STYLES, blank, sheet, tidy

MOST_FEATURES = 25  # of the importance plot
LABEL_LENGTH = 36  # characters of a slice's name


def draw(
    evaluation: Evaluation,
    *,
    others: Mapping[str, Evaluation] | None = None,
    events: Iterable[Event] = (),
    importance: Mapping[str, Interval] | None = None,
    aside: str = "",
) -> dict[str, Figure]:
    """Every plot of a report by file name; learning curves only where there were epochs.

    What nobody may overlook stands `aside` of each.
    """
    models = {"candidate": evaluation, **(others or {})}
    figures = {"calibration": reliability(models)}
    if evaluation.kind == "binary":
        figures |= {"roc": roc(models), "probabilities": probabilities(evaluation)}
    elif evaluation.kind == "classes":
        figures["confusion"] = confusion(evaluation)
    else:
        figures["residuals"] = residuals(evaluation)
    if importance:
        figures["importance"] = importances(importance, evaluation)
    if evaluation.slices:
        figures["slices"] = slices(models)
    if epochs := by_step(events):
        figures["learning_curves"] = learning_curves(epochs)
    if aside:
        for figure in figures.values():
            figure.suptitle(aside, x=0.01, ha="left", fontsize=9, color=ORANGE)
    return figures


def roc(models: Mapping[str, Evaluation]) -> Figure:
    """How much of one outcome is recognised at how many false alarms, per model."""
    figure, axes = blank("How well are the outcomes told apart? (ROC curves)", square=True)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance: AUC 0.500")
    for name, evaluation in models.items():
        colour, style = STYLES[name]
        x, y = zip(*evaluation.roc, strict=True) if evaluation.roc else ((), ())
        label = f"{name}: AUC {_with_bounds(evaluation, 'auc')}"
        axes.plot(x, y, color=colour, linestyle=style, linewidth=2, label=label)
    no, yes = models["candidate"].outcomes
    axes.set_xlabel(f"{no} taken for {yes} (share)")
    axes.set_ylabel(f"{yes} recognised (share)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right", frameon=False)
    return figure


def reliability(models: Mapping[str, Evaluation]) -> Figure:
    """Predicted against observed, and how many rows each bin of like predictions holds."""
    figure = sheet(6.0)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    predicted, observed, question = _reliability_words(models["candidate"])
    tidy(axes, f"{question} (reliability)")
    tidy(counts, "")
    bins = models["candidate"].calibration
    share = models["candidate"].kind != "number"
    ends = (0.0, 1.0) if share else (bins[0].prediction, bins[-1].prediction)
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=":", label="perfect")
    for name, evaluation in models.items():
        colour, style = STYLES[name]
        x = [b.prediction for b in evaluation.calibration]
        y = [b.target for b in evaluation.calibration]
        error = evaluation.metrics["calibration_error"].value
        label = f"{name}: mean gap {error:.3f}{'' if share else ' sd'}"
        axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    axes.set_ylabel(observed)
    axes.legend(loc="upper left", frameon=False)
    counts.vlines([b.prediction for b in bins], 0, [b.rows for b in bins], color=BLUE, linewidth=6)
    counts.set_ylim(bottom=0)
    counts.set_ylabel("rows per bin")
    counts.set_xlabel(f"{predicted} (mean of a bin)")
    if share:
        axes.set_ylim(0, 1)
        counts.set_xlim(0, 1)
    return figure


def _reliability_words(evaluation: Evaluation) -> tuple[str, str, str]:
    """What is predicted, what is observed, and the question between them."""
    if evaluation.kind == "number":
        return "predicted", "observed (mean of a bin)", "Does 70 mean 70?"
    if evaluation.kind == "classes":
        return "probability of the likeliest class", "of it (share)", "Does 70 % mean 70 %?"
    yes = evaluation.outcomes[1]
    return f"predicted probability of {yes}", f"{yes} (share)", "Does 70 % mean 70 %?"


def probabilities(evaluation: Evaluation) -> Figure:
    """How predicted probabilities spread, for one and for the other outcome."""
    no, yes = evaluation.outcomes
    figure, axes = blank(f"What the model says of {yes}, and of {no}")
    width = 1 / len(evaluation.histogram)
    left = [i * width for i in range(len(evaluation.histogram))]
    wrong = [w for w, _ in evaluation.histogram]
    right = [r for _, r in evaluation.histogram]
    look: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
    axes.bar(left, right, color=BLUE, label=f"{yes} ({sum(right):,})", **look)
    axes.bar(left, wrong, bottom=right, color=ORANGE, label=f"{no} ({sum(wrong):,})", **look)
    axes.set_xlabel(f"predicted probability of {yes}")
    axes.set_ylabel("rows")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="upper left", frameon=False)
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Which class is taken for which: shares of each class's rows, with their number."""
    names = [shorten(name, LABEL_LENGTH, placeholder=" ...") for name in evaluation.outcomes]
    figure, axes = blank("Which class is taken for which?", square=True)
    rows = np.array(evaluation.confusion)
    shares = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{share:.0%}\n{rows[i, j]:,}"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("called")
    axes.set_ylabel("in truth")
    return figure


def residuals(evaluation: Evaluation) -> Figure:
    """How far off predictions are, and to which side."""
    figure, axes = blank("How far off are the predictions?")
    edges = [edge for edge, _ in evaluation.residuals]
    width = edges[1] - edges[0]
    rows = [n for _, n in evaluation.residuals]
    axes.bar(edges, rows, width=width, align="edge", color=BLUE, edgecolor="white")
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    error = evaluation.metrics["rmse"].value
    axes.set_xlabel(f"observed minus predicted (root mean square {error:.3g})")
    axes.set_ylabel("rows")
    return figure


def importances(lost: Mapping[str, Interval], evaluation: Evaluation) -> Figure:
    """What the headline figure loses when a feature's values change rows, with its interval."""
    shown = list(lost.items())[:MOST_FEATURES]
    figure, axes = blank("What does the model lean on?", height=1.6 + 0.27 * len(shown))
    places = range(len(shown))
    values = [f.value for _, f in shown]
    bounds = [[f.value - f.low for _, f in shown], [f.high - f.value for _, f in shown]]
    axes.errorbar(values, places, xerr=bounds, fmt="o", color=BLUE, markersize=5)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(places, [shorten(name, LABEL_LENGTH, placeholder=" ...") for name, _ in shown])
    axes.invert_yaxis()
    title = evaluation.of_kind.metrics[evaluation.of_kind.headline].title
    axes.set_xlabel(f"{title} lost when its values change rows, with 95 % interval")
    axes.grid(axis="x", color="#E6E6E6")
    return figure


def learning_curves(epochs: Mapping[int, Event]) -> Figure:
    """Training and validation loss by epoch, the best epoch marked."""
    figure, axes = blank("How training went")
    looks = {"train_loss": ("training", ORANGE, "--"), "validation_loss": ("validation", BLUE, "-")}
    for key, (label, colour, style) in looks.items():
        points = [(step, e.metrics[key]) for step, e in sorted(epochs.items()) if key in e.metrics]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    validated = {
        s: e.metrics["validation_loss"] for s, e in epochs.items() if "validation_loss" in e.metrics
    }
    if validated:
        best = min(validated, key=lambda step: validated[step])
        axes.axvline(best, color=GREY, linewidth=1, linestyle=":", label=f"kept: epoch {best}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (per scored row)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def slices(models: Mapping[str, Evaluation]) -> Figure:
    """One figure per slice with its interval; beside it the baseline's, and the overall line."""
    kind = models["candidate"].of_kind
    metric = kind.of_slice[0]
    rows = _slice_rows(models["candidate"], metric)
    figure, axes = blank("Where is it good, and where not?", height=1.4 + 0.27 * len(rows))
    places = range(len(rows))
    overall = models["candidate"].metrics[metric].value
    axes.axvline(overall, color=GREY, linewidth=1, linestyle=":", label=f"all: {overall:.3f}")
    for shift, (name, evaluation) in enumerate(models.items()):
        colour, _ = STYLES[name]
        points = [(i, evaluation.slices.get(c, {}).get(v)) for i, (c, v, _) in enumerate(rows)]
        held = [(i, s.metrics[metric]) for i, s in points if s and _defined(s, metric)]
        if not held:
            continue
        y = [i + 0.22 * shift for i, _ in held]
        x = [f.value for _, f in held]
        bounds = [[f.value - f.low for _, f in held], [f.high - f.value for _, f in held]]
        marker = "oD^"[shift % 3]
        axes.errorbar(x, y, xerr=bounds, fmt=marker, color=colour, markersize=5, label=name)
    axes.set_yticks(list(places), [label for _, _, label in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{kind.metrics[metric].title}, with 95 % interval by group")
    axes.grid(axis="x", color="#E6E6E6")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _slice_rows(evaluation: Evaluation, metric: str) -> list[tuple[str, str, str]]:
    rows = []
    for column, parts in evaluation.slices.items():
        for value, part in parts.items():
            note = "" if _defined(part, metric) else ", too few"
            title = column.replace("_", " ")
            short = shorten(f"{title}: {value}", LABEL_LENGTH, placeholder=" ...")
            rows.append((column, value, f"{short} (n={part.rows:,}{note})"))
    return rows


def _defined(part: Slice, metric: str) -> bool:
    figure = part.metrics[metric]
    return not math.isnan(figure.value) and not math.isnan(figure.low)


def _with_bounds(evaluation: Evaluation, metric: str) -> str:
    figure = evaluation.metrics[metric]
    if math.isnan(figure.low):
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
