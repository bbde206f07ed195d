"""The model card: what a version is, what it was made of, and how far to trust it.

After Mitchell et al., "Model Cards for Model Reporting" (2019), in Markdown.
Every figure comes from the run's own records; nothing is typed in by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import NAMES, SplitTable
from ray_jobs.evaluation import Evaluation
from ray_jobs.families import Protocol, Words
from ray_jobs.intervals import Interval
from ray_jobs.recipe import Recipe, as_dict
from tasks.provenance import flat

UNDEFINED = "–"
DIRECTIONS = {True: "higher is better", False: "lower is better"}


@dataclass(frozen=True)
class Facts:
    """All a card tells; the records of the stages as they are."""

    recipe: Recipe
    title: str  # of the family
    words: Words
    protocol: Protocol
    data: CleanTable
    split: SplitTable
    evaluation: Evaluation
    others: Mapping[str, Evaluation] = field(default_factory=dict)  # baseline, champion, ...
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    training: Mapping[str, object] = field(default_factory=dict)  # epochs, seconds, workers, ...
    lineage: str = ""
    parent: str = ""  # the version that training began from; empty: from nothing
    code: Mapping[str, str] = field(default_factory=dict)  # as provenance.code_tags gives it


def card(facts: Facts) -> str:
    """The whole card."""
    recipe = facts.recipe
    sections = {
        f"{recipe.service}: {facts.title}": _headline(facts),
        "Intended use": _use(facts),
        "Figures": _figures(facts),
        "Where it is good, and where not": _slices(facts.evaluation),
        "Calibration": _calibration(facts.evaluation),
        "Data": _data(facts),
        "Training": _training(facts),
        "Limits": _limits(facts),
        "Lineage": _lineage(facts),
    }
    parts = [
        f"{'#' if i == 0 else '##'} {title}\n\n{text.strip()}\n"
        for i, (title, text) in enumerate(sections.items())
    ]
    return "\n".join(parts)


def _headline(facts: Facts) -> str:
    evaluation, kind = facts.evaluation, facts.evaluation.of_kind
    gain = facts.differences.get("baseline", {}).get(kind.headline)
    title = kind.metrics[kind.headline].title
    figure = f"{title} {_text(evaluation.headline)}"
    lines = [f"**{figure}** on {evaluation.rows:,} {facts.protocol.rows} it never saw."]
    if gain is not None:
        lines.append(f"Against the baseline: {_signed(gain)}, {_verdict(gain)}.")
    if facts.protocol.barred:
        lines.append(f"**It may not serve**: {facts.protocol.barred}.")
    return " ".join(lines)


def _verdict(gain: Interval) -> str:
    if not gain.excludes_zero:
        return "no difference beyond chance"
    return "better beyond chance" if gain.low > 0 else "worse beyond chance"


def _use(facts: Facts) -> str:
    return (
        f"The service `{facts.recipe.service}` answers requests of the family "
        f"`{facts.recipe.family}` ({facts.title}), about what is like its data. {facts.words.use}"
    )


def _figures(facts: Facts) -> str:
    evaluation = facts.evaluation
    names = ["this version", *facts.others]
    gains = [f"minus {name}" for name in facts.differences]
    rows = []
    for key, figure in evaluation.metrics.items():
        metric = evaluation.of_kind.metrics[key]
        row = [f"{metric.title} ({DIRECTIONS[metric.higher_is_better]})", _text(figure)]
        row += [_text(other.metrics[key]) for other in facts.others.values()]
        row += [_signed(difference[key]) for difference in facts.differences.values()]
        rows.append(row)
    return (
        f"{facts.protocol.words}\n\n"
        f"{evaluation.rows:,} scored rows of {evaluation.groups:,} groups, "
        f"{_rate(evaluation, evaluation.rate)}. In brackets: 95 % intervals by bootstrap over "
        "whole groups; differences are paired, on the same rows.\n\n"
        + _table(["figure", *names, *gains], rows)
    )


def _slices(evaluation: Evaluation) -> str:
    rows = [
        [column.replace("_", " "), value, f"{part.rows:,}", f"{part.groups:,}"]
        + [_rate(evaluation, part.rate)]
        + [_text(figure) for figure in part.metrics.values()]
        for column, parts in evaluation.slices.items()
        for value, part in parts.items()
    ]
    if not rows:
        return "Not divided."
    kind = evaluation.of_kind
    figures = [kind.metrics[name].title for name in kind.of_slice]
    header = ["slice", "value", "rows", "groups", "of them", *figures]
    return _table(header, rows) + f"\n\n{UNDEFINED}: too few rows, or one outcome only."


def _rate(evaluation: Evaluation, rate: float) -> str:
    """The mean target in words."""
    if evaluation.kind == "number":
        return f"{rate:.4g} on average"
    return f"{rate:.1%} " + (
        evaluation.outcomes[1] if evaluation.kind == "binary" else "of the commonest class"
    )


def _calibration(evaluation: Evaluation) -> str:
    rows = [
        [f"{b.prediction:.3f}", f"{b.target:.3f}", f"{b.rows:,}"] for b in evaluation.calibration
    ]
    return (
        f"Mean gap between prediction and outcome: "
        f"{_text(evaluation.metrics['calibration_error'])}; on so many rows luck alone may show "
        f"{evaluation.calibration_by_chance:.4f}.\n\n"
        + _table(["predicted (mean)", "observed (mean)", "rows"], rows)
    )


def _data(facts: Facts) -> str:
    data, split = facts.data, facts.split
    counts = [
        ["read", f"{data.read:,}"],
        ["kept", f"{data.kept:,}"],
        ["merged into another row", f"{data.merged:,}"],
        ["delivered again", f"{data.repeats:,}"],
        *([f"quarantined: {k.replace('_', ' ')}", f"{n:,}"] for k, n in data.quarantined.items()),
    ]
    splits = [
        [name, f"{split.rows[name]:,}", f"{split.scored[name]:,}", f"{split.groups[name]:,}"]
        for name in NAMES
    ]
    how = "The data came with this split." if split.delivered else "Groups divided by salted hash."
    notes = "".join(f"- {note}\n" for note in data.notes) + ("\n" if data.notes else "")
    return (
        f"Digest `{data.digest}`.\n\n{_table(['rows', 'count'], counts)}\n\n"
        f"{how} No group is in two splits.\n\n{notes}"
        + _table(["split", "rows", "scored", "groups"], splits)
    )


def _training(facts: Facts) -> str:
    settings = flat(as_dict(facts.recipe.spec), "spec.") | flat(as_dict(facts.recipe.budget))
    settings["seed"] = str(facts.recipe.seed)
    rows = [[f"`{key}`", _short(value)] for key, value in settings.items()]
    rows += [[key.replace("_", " "), _short(value)] for key, value in facts.training.items()]
    return _table(["setting", "value"], rows)


def _limits(facts: Facts) -> str:
    sparse = [
        f"{column.replace('_', ' ')} = {value}"
        for column, parts in facts.evaluation.slices.items()
        for value, part in parts.items()
        if math.isnan(part.metrics[facts.evaluation.of_kind.of_slice[0]].value)
    ]
    lines = [f"- {limit}" for limit in facts.words.limits]
    if sparse:
        lines.append(f"- Not measured, for want of rows: {'; '.join(sparse)}.")
    return "\n".join(lines)


def _lineage(facts: Facts) -> str:
    commit = facts.code.get("mlflow.source.git.commit")
    dirty = facts.code.get("mlflow.source.git.dirty") == "true"
    code = (
        f"commit `{commit}`{' with uncommitted changes' if dirty else ''}" if commit else "package"
    )
    rows = [
        ["lineage", f"`{facts.lineage}`"],
        ["trained on from", facts.parent or "nothing"],
        ["recipe", f"`{facts.recipe.name}`"],
        ["data", f"`{facts.data.digest}`"],
        ["code", f"{code}, version {facts.code.get('lyceum.version', 'unknown')}"],
        ["seed", str(facts.recipe.seed)],
    ]
    return _table(["what", "which"], rows)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text(figure: Interval) -> str:
    if math.isnan(figure.value):
        return UNDEFINED
    bounds = "" if math.isnan(figure.low) else f" [{figure.low:.4f}, {figure.high:.4f}]"
    return f"{figure.value:.4f}{bounds}"


def _signed(figure: Interval) -> str:
    if math.isnan(figure.value):
        return UNDEFINED
    bounds = "" if math.isnan(figure.low) else f" [{figure.low:+.4f}, {figure.high:+.4f}]"
    return f"{figure.value:+.4f}{bounds}"


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
