"""What a training job is told: a small record on the store, named by URI.

`python -m ray_jobs.train SPEC_URI` reads one, trains, and writes its artifact,
checkpoints and events beside it; whoever submitted it only watches the store.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ray_jobs import store
from ray_jobs.errors import StoreError
from ray_jobs.recipe import Budget, Resources
from ray_jobs.training.events import Event, Follower

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record")


class Following(Protocol):
    """Reads what a job tells, from where it stopped."""

    def poll(self) -> list[Event]: ...


class Job(Protocol):
    """What can be submitted to Ray: a record on the store, and the events of who reads it."""

    @property
    def kind(self) -> str:
        """Of `python -m ray_jobs.KIND JOB_URI`."""

    @property
    def work(self) -> str:
        """What it does, for who waits."""

    @property
    def name(self) -> str: ...

    @property
    def holder(self) -> str:
        """Who follows it, one job of a kind at a time; empty: not told."""

    def save(self) -> str: ...

    def follower(self) -> Following: ...


@dataclass(frozen=True)
class TrainJob:
    """One model to train. All URIs are on the store."""

    kind: ClassVar[str] = "train"
    work: ClassVar[str] = "training"

    name: str  # unique per lineage and attempt-independent: a restart resumes it
    family: str
    spec: dict[str, Any]  # as recipe.as_dict gives it
    train: str  # URI of the clean train split, a Parquet file or a folder of them
    validation: str  # the same of the validation split
    output: str  # folder: artifact/, checkpoints/, events.jsonl, vocabulary.json
    seed: int
    workers: int
    budget: Budget
    resources: Resources
    about: dict[str, Any]  # goes into the artifact as it is: lineage, data digest, ...
    holder: str = ""  # whose job it is, who has one at a time: a service of a home
    parent: str = ""  # URI of the artifact that training begins from; empty: from nothing
    parent_digest: str = ""
    kept: float = 1.0  # share of its weights

    @property
    def artifact(self) -> str:
        return store.join(self.output, "artifact")

    @property
    def events(self) -> str:
        return store.join(self.output, "events.jsonl")

    @property
    def vocabulary(self) -> str:
        """Written before the workers start, and read by each of them."""
        return store.join(self.output, "vocabulary.json")

    @property
    def checkpoints(self) -> str:
        return store.join(self.output, "checkpoints")

    def follower(self) -> Follower:
        """Reads what the training tells, as it tells it."""
        return Follower(self.events)

    def save(self) -> str:
        """Write the record beside its output; returns its URI."""
        return saved(self, self.output)

    @classmethod
    def load(cls, uri: str) -> TrainJob:
        return loaded(cls, uri)


def saved(record: DataclassInstance, output: str) -> str:
    """Write a job's record beside its output; returns its URI."""
    uri = store.join(output, "job.json")
    store.write_json(uri, asdict(record))
    return uri


def loaded(kind: type[Record], uri: str) -> Record:
    """Read a job's record; raises StoreError for one of another version."""
    values = store.read_json(uri)
    try:
        parts = {
            "budget": Budget(**values["budget"]),
            "resources": Resources(**values["resources"]),
        }
        return kind(**{**values, **parts})
    except (KeyError, TypeError) as error:
        raise StoreError(f"{uri} is no job of this version ({error}); run again") from error
