"""The plots of a search: how its trials went, and what each setting had to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ray_jobs.tuning.space import Choice, Domain, Space, text
from ray_jobs.tuning.trials import FINISHED, STOPPED, Trial, ranked
from tasks.drawing import BLUE, GREY, ORANGE, blank, label, sheet, tidy

LOOKS = {FINISHED: (BLUE, "o", "trained to the end"), STOPPED: (GREY, "x", "stopped early")}
ROW = 2.6  # inches of a row of settings
ACROSS = 2  # settings in a row


def draw(space: Space, trials: Sequence[Trial]) -> dict[str, Figure]:
    """Every plot of a search by file name."""
    return {"trials": curves(trials), "settings": settings(space, ranked(trials))}


def curves(trials: Sequence[Trial]) -> Figure:
    """Validation loss by epoch: the best trial against all others."""
    figure, axes = blank("How the trials went")
    best = ranked(trials)[0]
    for trial in trials:
        if trial.losses and trial is not best:
            style = "-" if trial.end == FINISHED else ":"
            axes.plot(*_points(trial), color=GREY, linestyle=style, linewidth=1, marker=".")
    told = f"best: trial {best.number}, {best.loss:.4f}"
    axes.plot(*_points(best), color=BLUE, linewidth=2, marker="o", markersize=4, label=told)
    axes.plot([], [], color=GREY, linestyle="-", label="trained to the end")
    axes.plot([], [], color=GREY, linestyle=":", label="stopped early")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation loss (per scored row)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def settings(space: Space, trials: Sequence[Trial]) -> Figure:
    """Validation loss by each setting, a point for each trial."""
    rows = -(-len(space) // ACROSS)
    figure = sheet(1.0 + ROW * rows)
    grid = list(figure.subplots(rows, ACROSS, squeeze=False).flat)
    for (key, domain), axes in zip(space.items(), grid, strict=False):
        tidy(axes, "")
        _scatter(axes, key, domain, trials)
    for axes in grid[len(space) :]:
        axes.set_visible(False)
    figure.suptitle("Which settings did well?", x=0.01, ha="left", fontsize=13, fontweight="bold")
    grid[0].legend(frameon=False, fontsize=8)
    return figure


def _scatter(axes: Axes, key: str, domain: Domain, trials: Sequence[Trial]) -> None:
    for end, (colour, marker, words) in LOOKS.items():
        of = [trial for trial in trials if trial.end == end]
        x = [_place(domain, trial.settings[key]) for trial in of]
        losses = [float(trial.loss or 0.0) for trial in of]  # those that are ranked have one
        axes.plot(x, losses, color=colour, marker=marker, linestyle="", markersize=5, label=words)
    best = trials[0]
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": ORANGE, "markersize": 10}
    place = _place(domain, best.settings[key])
    axes.plot([place], [float(best.loss or 0.0)], marker="o", **ring)
    if isinstance(domain, Choice):
        axes.set_xticks(range(len(domain.values)), [label(text(v)) for v in domain.values])
    elif domain.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    elif domain.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(key)
    axes.set_ylabel("validation loss")


def _place(domain: Domain, value: Any) -> float:
    return float(domain.values.index(value) if isinstance(domain, Choice) else value)


def _points(trial: Trial) -> tuple[list[int], list[float]]:
    steps = sorted(trial.losses)
    return steps, [trial.losses[step] for step in steps]
