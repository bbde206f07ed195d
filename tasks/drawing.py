"""How every plot looks: size, colours, a title at the left, no box.

800 by 500 pixels; colours that colour-blind readers tell apart (Okabe and Ito);
models differ by line style too, for those who print.
"""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C"
STYLES = {
    "candidate": (BLUE, "-"),
    "baseline": (ORANGE, "--"),
    "champion": (GREEN, "-."),
    "cold_start": (PINK, ":"),
}
WIDTH = 8.0  # inches, at 100 dots each
# Text stays text, in the letters of whoever looks at it; the same plot is the same file.
LOOK: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "lyceum"}


def sheet(height: float) -> Figure:
    """A figure without axes, so many inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def blank(title: str, *, height: float = 5.0, square: bool = False) -> tuple[Figure, Axes]:
    """An empty figure and its axes."""
    figure = sheet(6.0 if square else height)
    axes = figure.subplots()
    if square:
        axes.set_aspect("equal")
    tidy(axes, title)
    return figure, axes


def tidy(axes: Axes, title: str) -> None:
    """Title and ticks of axes."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def label(text: str, length: int = 36) -> str:
    """Text from data in a plot: short, legal in XML, and never taken for mathematics."""
    told = "".join(mark if mark.isprintable() else " " for mark in text).strip()
    short = told if len(told) <= length else f"{told[: length - 4]} ..."
    return short.replace("$", r"\$")


def picture(figure: Figure) -> str:
    """A figure as a data URL, for an image in a page."""
    buffer = io.BytesIO()
    with mpl.rc_context(LOOK), warnings.catch_warnings():
        # Only measured with our letters; the page is shown with the reader's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
