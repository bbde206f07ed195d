"""Named experiments on tables: each function is one, its docstring says what to expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray_jobs.families.tabular.networks import Boosting, Forest, Linear, Mlp, Stack
from ray_jobs.families.tabular.table import Columns
from ray_jobs.recipe import Budget, Gate, Recipe

# Boosting is hard to beat on tables: who is as good may serve.
AS_GOOD = Gate(beat_baseline=False, margin=0.005, slice_margin=0.05)


def smoke() -> Recipe:
    """Gradient boosting alone, in seconds: `lyceum run tabular-smoke --data PATH`."""
    return _recipe("tabular-smoke", Boosting(), service="tabular-smoke", workers=1)


def default() -> Recipe:
    """Linear model, forest and boosting, weighted: `lyceum run tabular --data PATH`.

    Say what is predicted with `--set columns.label=NAME`.
    """
    return _recipe("tabular", Stack(), workers=1)


def boosting() -> Recipe:
    """Gradient boosting as a service: `lyceum run tabular-boosting --data PATH`."""
    return _recipe("tabular-boosting", Boosting(), workers=1)


def forest() -> Recipe:
    """Many deep trees, for few and noisy rows: `lyceum run tabular-forest --data PATH`."""
    return _recipe("tabular-forest", Forest(), workers=1)


def linear() -> Recipe:
    """A weighted sum that a person can check: `lyceum run tabular-linear --data PATH`."""
    return _recipe("tabular-linear", Linear(), workers=1)


def mlp() -> Recipe:
    """A modern perceptron, for many rows: `lyceum run tabular-mlp --data PATH`."""
    return _recipe("tabular-mlp", Mlp(), budget=Budget(30, 512, 3e-3, weight_decay=0.02))


def classic() -> Recipe:
    """The 64-32-1 perceptron of the textbooks: `lyceum run tabular-classic --data PATH`."""
    spec = Mlp(width=64, heads=1, periods=0, embedding=0, dropout=0.0)
    return _recipe("tabular-classic", spec, budget=Budget(30, 256, 3e-3))


def demo() -> Recipe:
    """What `lyceum demo --family tabular` runs: benign or not, from 569 cells measured."""
    return _recipe("tabular-demo", Stack(), service="demo-tabular", workers=1)


def _recipe(name: str, spec: Any, *, service: str = "tabular", **parts: Any) -> Recipe:
    return Recipe(name, "tabular", service, spec, columns=Columns(), gate=AS_GOOD, **parts)


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe().name: recipe
    for recipe in (smoke, default, boosting, forest, linear, mlp, classic, demo)
}
