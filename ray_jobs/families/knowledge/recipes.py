"""Named experiments of knowledge tracing: each function is one, its docstring says what to expect.

`lyceum run NAME` runs one; `default` goes by the family's own name.
"""

from __future__ import annotations

from collections.abc import Callable

from ray_jobs.families.knowledge.networks import Attention, Blend, Logistic, Lstm, Rasch
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.recipe import Budget, Recipe, Split


def smoke() -> Recipe:
    """The baseline alone, in seconds: `lyceum run knowledge-smoke --data PATH`.

    For trying the pipeline; no network is trained.
    """
    return Recipe(
        "knowledge-smoke", "knowledge", "knowledge-smoke", Rasch(), workers=1, columns=Columns()
    )


def default() -> Recipe:
    """An LSTM with item difficulty: `lyceum run knowledge --data PATH`."""
    return Recipe("knowledge", "knowledge", "knowledge", Lstm(), columns=Columns())


def attention() -> Recipe:
    """A causal transformer with forgetting: `lyceum run knowledge-attention --data PATH`."""
    return Recipe("knowledge-attention", "knowledge", "knowledge", Attention(), columns=Columns())


def best() -> Recipe:
    """Three LSTMs and a transformer, the most accurate: `lyceum run knowledge-best --data PATH`."""
    return Recipe("knowledge-best", "knowledge", "knowledge", Blend(), columns=Columns())


def logistic() -> Recipe:
    """Logistic regression on counts, in seconds: `lyceum run knowledge-logistic --data PATH`."""
    return Recipe(
        "knowledge-logistic", "knowledge", "knowledge", Logistic(), workers=1, columns=Columns()
    )


def rasch() -> Recipe:
    """The online Rasch/Elo baseline as a service: `lyceum run knowledge-rasch --data PATH`."""
    return Recipe(
        "knowledge-rasch", "knowledge", "knowledge", Rasch(), workers=1, columns=Columns()
    )


def demo() -> Recipe:
    """What `lyceum demo` runs on simulated learners: train on the past, test on the future.

    AUC .820 (.803 to .835) on 7,436 answers, .015 above the baseline (.010 to .021) and .014
    below the Bayes filter that knows the world. A minute and a quarter in all on two cores.
    """
    return Recipe(
        "knowledge-demo",
        "knowledge",
        "demo-knowledge",
        # Without item company: with 200 items it added nothing to validation AUC.
        Lstm(width=48, neighbours=0, dropout=0.2),
        columns=Columns(),
        budget=Budget(epochs=10, batch_cost=1024, learning_rate=8e-3),
        split=Split(test=0.25, validation=0.1, until=0.8),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe().name: recipe for recipe in (smoke, default, attention, best, logistic, rasch, demo)
}
