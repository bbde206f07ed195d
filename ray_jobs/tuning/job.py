"""What a search is told: a small record on the store, named by URI, and what it makes of it.

`python -m ray_jobs.tune JOB_URI` reads one. Its own events tell which trials there
are; each trial is a training job with a folder, events and checkpoints of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from ray_jobs import store
from ray_jobs.families import family
from ray_jobs.recipe import Budget, Recipe, Resources, as_dict, spec_from
from ray_jobs.training.events import Event, Follower
from ray_jobs.training.job import TrainJob, loaded, saved
from ray_jobs.tuning import space as spaces


@dataclass(frozen=True)
class SearchJob:
    """One search. All URIs are on the store."""

    kind: ClassVar[str] = "tune"
    work: ClassVar[str] = "tuning"

    name: str  # unique per lineage and attempt-independent: a restart resumes it
    family: str
    spec: dict[str, Any]  # as recipe.as_dict gives it; what is not searched stays so
    train: str  # URI of the clean train split
    validation: str  # of the validation split, by which trials are judged
    output: str  # folder: events.jsonl, vocabulary.json, trials/<number>/
    seed: int  # of the suggestions, and of every training
    trials: int
    space: dict[str, dict[str, Any]]  # as space.as_json gives it
    budget: Budget
    resources: Resources
    holder: str = ""  # whose search it is, who has one at a time: a service of a home

    @property
    def events(self) -> str:
        """Which trials there are: an event for each, with its settings."""
        return store.join(self.output, "events.jsonl")

    @property
    def vocabulary(self) -> str:
        """Written before the first trial, and read by each of them."""
        return store.join(self.output, "vocabulary.json")

    @cached_property
    def domains(self) -> dict[str, spaces.Domain]:
        return spaces.from_json(self.space)

    @cached_property
    def recipe(self) -> Recipe:
        """What all trials have in common."""
        spec = spec_from(self.spec, family(self.family).specs)
        plain = Recipe(self.name, self.family, self.name, spec, seed=self.seed, workers=1)
        return replace(plain, budget=self.budget, resources=self.resources)

    @property
    def epochs(self) -> int:
        """The most that any trial is trained for."""
        if hasattr(self.recipe.spec, "fit"):
            return 1
        searched = self.domains.get("budget.epochs")
        if isinstance(searched, spaces.Range):
            return int(searched.high)
        return max(searched.values) if searched else self.budget.epochs

    def trial(self, number: int, settings: Mapping[str, Any]) -> TrainJob:
        """The training of one trial; raises UsageError for settings that do not go together."""
        chosen = spaces.tried(self.recipe, settings)
        return TrainJob(
            name=f"{self.name}-{number}",
            family=self.family,
            spec=as_dict(chosen.spec),
            train=self.train,
            validation=self.validation,
            output=self.folder(number),
            seed=self.seed,
            workers=1,
            budget=chosen.budget,
            resources=self.resources,
            about={"trial": number},
        )

    def folder(self, number: int) -> str:
        """Where a trial keeps what is its own."""
        return store.join(self.output, "trials", f"{number:04d}")

    def trial_events(self, number: int) -> str:
        return store.join(self.folder(number), "events.jsonl")

    def follower(self) -> TrialsFollower:
        """Reads what the search and its trials tell, as they tell it."""
        return TrialsFollower(self)

    def save(self) -> str:
        """Write the record beside its output; returns its URI."""
        return saved(self, self.output)

    @classmethod
    def load(cls, uri: str) -> SearchJob:
        return loaded(cls, uri)


class TrialsFollower:
    """Reads on from where it stopped: the search's events, and those of every trial it names.

    What a trial tells has its number in the detail, as `trial`; each epoch is given once.
    """

    def __init__(self, job: SearchJob) -> None:
        self._job = job
        self._search = Follower(job.events)
        self._trials: dict[int, Follower] = {}
        self._read: list[Event] = []  # and not yet given: the storage went away before the rest

    def poll(self) -> list[Event]:
        """What is new since the last call; a trial is told of before anything it tells."""
        found = self._search.poll()
        self._read += found
        for number in (event.step for event in found if event.kind == "trial"):
            self._trials.setdefault(number, Follower(self._job.trial_events(number)))
        for number, follower in list(self._trials.items()):
            news = to_its_end(follower.poll())
            self._read += [replace(e, detail={**e.detail, "trial": number}) for e in news]
            if news and news[-1].kind == "ended":
                del self._trials[number]
        given, self._read = self._read, []
        return given


def to_its_end(tale: list[Event]) -> list[Event]:
    """What a trial told until it ended; a worker whose driver was killed may say more."""
    end = next((i for i, event in enumerate(tale, start=1) if event.kind == "ended"), len(tale))
    return tale[:end]
