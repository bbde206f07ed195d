"""What to try next: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

A suggestion follows from the seed, its number and the trials known by then, and
from nothing that is kept in memory: a search that was killed goes on as it would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ray_jobs import manifest
from ray_jobs.recipe import Recipe
from ray_jobs.tuning.space import Choice, Domain, Space, current
from ray_jobs.tuning.trials import FAILED, FINISHED, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 10  # trials at random before any is drawn near the good ones; of few, a third


def suggested(
    space: Space, recipe: Recipe, known: Iterable[Trial], *, number: int, trials: int, seed: int
) -> dict[str, Any]:
    """The settings of a trial; the first are the recipe's own, where the space has them."""
    own = {key: current(recipe, key) for key in space}
    if number == 1 and all(space[key].holds(value) for key, value in own.items()):
        return own
    import optuna

    distributions = {key: _distribution(domain) for key, domain in space.items()}
    draw = int(manifest.digest([seed, number])[:8], 16)
    # Trials that run beside it count as poor meanwhile, so that not all look at one place.
    sampler = optuna.samplers.TPESampler(
        seed=draw, n_startup_trials=min(STARTUP, trials // 3 + 1), constant_liar=True
    )
    study = _quiet_study(sampler)
    study.add_trials([_frozen(trial, distributions, space) for trial in known])
    drawn = study.ask(fixed_distributions=distributions).params
    return {key: _plain(space[key], value) for key, value in drawn.items()}


def _quiet_study(sampler: Any) -> Any:
    """A study in memory; Optuna tells of each on standard error unless told not to."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction="minimize")


def _plain(domain: Domain, drawn: Any) -> Any:
    return domain.values[drawn] if isinstance(domain, Choice) else domain.plain(drawn)


def _distribution(domain: Domain) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(domain, Choice):
        # By place: Optuna takes 1, 1.0 and True for one choice.
        return CategoricalDistribution(range(len(domain.values)))
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _frozen(trial: Trial, distributions: dict[str, BaseDistribution], space: Space) -> FrozenTrial:
    """A trial as Optuna knows one: one stopped early by how far it came, a failed one as worst."""
    from optuna.trial import TrialState, create_trial

    states = {FINISHED: TrialState.COMPLETE, "": TrialState.RUNNING}
    state = states.get(trial.end, TrialState.PRUNED)
    params = {
        key: domain.values.index(value) if isinstance(domain, Choice) else value
        for key, domain in space.items()
        for value in [trial.settings[key]]
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that are new to it
        return create_trial(
            state=state,
            params=params,
            distributions=distributions,
            value=trial.loss if state == TrialState.COMPLETE else None,
            intermediate_values={} if trial.end == FAILED else _so_far(trial),
        )


def _so_far(trial: Trial) -> dict[int, float]:
    """How far it came, with what loss."""
    return {} if trial.loss is None else {trial.epochs: trial.loss}
