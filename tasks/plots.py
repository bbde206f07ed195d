"""The plots of a report: figures to look at, drawn without any global state.

800 by 500 pixels; colours that colour-blind readers tell apart (Okabe and Ito);
models differ by line style too, for those who print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ray_jobs.evaluation import Evaluation, Slice
from ray_jobs.training.events import Event, by_step

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
STYLES = {"candidate": (BLUE, "-"), "baseline": (ORANGE, "--"), "champion": (GREEN, "-.")}
WIDTH = 8.0  # inches, at 100 dots each
LABEL_LENGTH = 36  # characters of a slice's name
SLICE_TITLES = {"auc": "AUC", "log_loss": "Log loss (nats per answer)"}


def draw(
    evaluation: Evaluation,
    *,
    others: Mapping[str, Evaluation] | None = None,
    events: Iterable[Event] = (),
) -> dict[str, Figure]:
    """Every plot of a report by file name; learning curves only where there were epochs."""
    models = {"candidate": evaluation, **(others or {})}
    figures = {
        "roc": roc(models),
        "calibration": reliability(models),
        "probabilities": probabilities(evaluation),
    }
    if evaluation.slices:
        figures["slices"] = slices(models)
    if epochs := by_step(events):
        figures["learning_curves"] = learning_curves(epochs)
    return figures


def roc(models: Mapping[str, Evaluation]) -> Figure:
    """How many right answers are recognised at how many false alarms, per model."""
    figure, axes = _blank("Which answers will be right? (ROC curves)", square=True)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="chance: AUC 0.500")
    for name, evaluation in models.items():
        colour, style = STYLES[name]
        x, y = zip(*evaluation.roc, strict=True) if evaluation.roc else ((), ())
        label = f"{name}: AUC {_with_bounds(evaluation, 'auc')}"
        axes.plot(x, y, color=colour, linestyle=style, linewidth=2, label=label)
    axes.set_xlabel("wrong answers taken for right ones (share)")
    axes.set_ylabel("right answers recognised (share)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(loc="lower right", frameon=False)
    return figure


def reliability(models: Mapping[str, Evaluation]) -> Figure:
    """Predicted against observed shares of right answers, and how many rows each bin holds."""
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _tidy(axes, "Does 70 % mean 70 %? (reliability)")
    _tidy(counts, "")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="perfect")
    for name, evaluation in models.items():
        colour, style = STYLES[name]
        x = [b.prediction for b in evaluation.calibration]
        y = [b.target for b in evaluation.calibration]
        error = evaluation.metrics["calibration_error"].value
        label = f"{name}: mean gap {error:.3f}"
        axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    axes.set_ylabel("right answers (share)")
    axes.set_ylim(0, 1)
    axes.legend(loc="upper left", frameon=False)
    bins = models["candidate"].calibration
    counts.vlines([b.prediction for b in bins], 0, [b.rows for b in bins], color=BLUE, linewidth=6)
    counts.set_ylim(bottom=0)
    counts.set_ylabel("answers per bin")
    counts.set_xlabel("predicted probability of a right answer (mean of a bin)")
    counts.set_xlim(0, 1)
    return figure


def probabilities(evaluation: Evaluation) -> Figure:
    """How predicted probabilities spread, for right and for wrong answers."""
    figure, axes = _blank("What the model says of answers that were right, and wrong")
    width = 1 / len(evaluation.histogram)
    left = [i * width for i in range(len(evaluation.histogram))]
    wrong = [w for w, _ in evaluation.histogram]
    right = [r for _, r in evaluation.histogram]
    look: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
    axes.bar(left, right, color=BLUE, label=f"right ({sum(right):,})", **look)
    axes.bar(left, wrong, bottom=right, color=ORANGE, label=f"wrong ({sum(wrong):,})", **look)
    axes.set_xlabel("predicted probability of a right answer")
    axes.set_ylabel("answers")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="upper left", frameon=False)
    return figure


def learning_curves(epochs: Mapping[int, Event]) -> Figure:
    """Training and validation loss by epoch, the best epoch marked."""
    figure, axes = _blank("How training went")
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
    axes.set_ylabel("loss (nats per answer)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def slices(models: Mapping[str, Evaluation], metric: str = "auc") -> Figure:
    """One figure per slice with its interval; beside it the baseline's, and the overall line."""
    rows = _slice_rows(models["candidate"], metric)
    figure, axes = _blank("Where is it good, and where not?", height=1.4 + 0.27 * len(rows))
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
    axes.set_xlabel(f"{SLICE_TITLES.get(metric, metric)}, with 95 % interval by learner")
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


def _blank(title: str, *, height: float = 5.0, square: bool = False) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 6.0 if square else height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if square:
        axes.set_aspect("equal")
    _tidy(axes, title)
    return figure, axes


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
