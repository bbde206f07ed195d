"""A recipe: service, family, data, spec, budget, split and gate as plain frozen records.

What a run does follows from its recipe, its data, the code and the seed, and
from nothing else. `overridden` applies `--set key=value` with types checked.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from ray_jobs.errors import UsageError


class Spec(Protocol):
    """An architecture with its hyper-parameters: a frozen dataclass with a `name`.

    It has either `build(vocabulary) -> nn.Module`, trained by the loop, or
    `fit(train, validation, vocabulary) -> nn.Module` when it is closed-form.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "native", "float32", "bfloat16")


@dataclass(frozen=True)
class Budget:
    """How long and how hard to train."""

    epochs: int = 9  # passes over the train split
    batch_cost: int = 4096  # positions of one global batch, shared by all workers
    learning_rate: float = 5e-3  # the highest, between warm-up and cosine
    weight_decay: float = 0.01  # of matrices; biases and norms are left alone
    warmup_epochs: float = 0.5  # until the learning rate is at its highest
    clip_norm: float = 1.0  # longest gradient of a step
    schedule: str = "cosine"  # of the rate after warm-up: cosine, linear, or constant
    precision: str = "auto"  # float32, bfloat16, auto: that on a GPU, native: on able CPUs too
    compiled: bool = False  # by torch.compile: minutes at first, then faster steps
    micro_cost: int = 0  # positions that a worker computes at once; 0: its share of the batch
    sharded: bool = False  # weights and all that moves them divided among the workers (FSDP2)

    def __post_init__(self) -> None:
        """Raises UsageError for a budget that trains nothing."""
        positive, some = (1e-12, math.inf), (0, math.inf)
        within(self, "budget", epochs=(1, math.inf), batch_cost=(1, math.inf), clip_norm=positive)
        within(self, "budget", learning_rate=positive, weight_decay=some, warmup_epochs=some)
        within(self, "budget", micro_cost=some)
        among(self, "budget", schedule=SCHEDULES, precision=PRECISIONS)
        if self.sharded and self.compiled:
            raise UsageError(
                "budget.sharded and budget.compiled: one at a time; a block that is gathered "
                "while it computes cannot be compiled with the others"
            )


@dataclass(frozen=True)
class Split:
    """Who is trained on, and who is only predicted.

    Groups (learners) are divided by a salted hash; with `until` below 1 the
    training groups are cut at that quantile of time, and of the test groups
    only what came later is scored: train on the past, test on the future.
    A split that the data came with is honoured instead.
    """

    test: float = 0.2  # share of groups
    validation: float = 0.1  # share of groups
    until: float = 1.0  # quantile of time where training ends and testing begins
    folds: int = 0  # of a cross-validation beside the test split; 0: none

    def __post_init__(self) -> None:
        """Raises UsageError for shares that leave nobody to train on."""
        shares = self.test > 0 and self.validation > 0 and self.test + self.validation < 1
        if not shares or not 0 < self.until <= 1:
            raise UsageError(
                f"{self}: expected test and validation above 0 and below 1 together, and until "
                "above 0 and at most 1; see --set split.test, split.validation, split.until"
            )
        if self.folds == 1 or self.folds < 0:
            raise UsageError(f"split.folds={self.folds}: expected 0, or 2 and more")


@dataclass(frozen=True)
class Start:
    """What training begins from."""

    champion: bool = False  # what the champion knows; false: nothing
    kept: float = 0.7  # share of its weights; the rest is drawn anew, or it could not learn on
    epochs: int = 4  # of the budget's: less is left to learn
    compared: bool = True  # then train from nothing too, to tell what the start was worth

    def __post_init__(self) -> None:
        """Raises UsageError for a start with nothing of a champion, or nothing after it."""
        within(self, "start", kept=(0.01, 1), epochs=(1, math.inf))


@dataclass(frozen=True)
class Gate:
    """What a candidate must show before it may become champion."""

    beat_baseline: bool = True  # beyond chance; false: not worse than it by more than the margin
    margin: float = 0.002  # how much worse than the champion is still "not worse"
    slice_margin: float = 0.02  # the same of a part of the rows, beyond chance
    max_calibration_error: float = 0.05  # mean gap of prediction and outcome
    max_latency_ms: float = 250.0  # p95 of single requests to a real replica
    max_size_mb: float = 500.0  # of the artifact

    def __post_init__(self) -> None:
        """Raises UsageError for a margin or a limit below zero."""
        limits = {f.name: (0.0, math.inf) for f in dataclasses.fields(self) if f.type == "float"}
        within(self, "gate", **limits)


@dataclass(frozen=True)
class NoColumns:
    """Of a family whose files can be read in one way only."""


@dataclass(frozen=True)
class Resources:
    """What one training worker and one serving replica claim of the cluster."""

    worker_cpus: float = 0.75  # below 1, so that a live service fits beside training
    worker_gpus: float = 0.0  # of each training worker
    min_workers: int = 0  # that training goes on with while nodes are away; 0: all are waited for
    resize_s: float = 60.0  # before training takes in nodes that came; an epoch begun is lost
    replica_cpus: float = 0.1  # claimed, so that training and serving go together
    replicas: int = 1  # copies of a service, at least
    most_replicas: int = 0  # up to which they become more while requests wait; 0: as many

    def __post_init__(self) -> None:
        """Raises UsageError for a claim on less than nothing, or no replica at all."""
        some = (0, math.inf)
        within(self, "resources", worker_cpus=some, worker_gpus=some, replica_cpus=some)
        within(self, "resources", replicas=(1, math.inf), min_workers=some, resize_s=some)
        within(self, "resources", most_replicas=some)
        if self.most_replicas and self.most_replicas < self.replicas:
            raise UsageError(
                f"resources.most_replicas={self.most_replicas}: below resources.replicas="
                f"{self.replicas}; expected at least as many, or 0"
            )


@dataclass(frozen=True)
class Recipe:
    """One named experiment, ready to run."""

    name: str
    family: str
    service: str
    spec: Spec
    data: str = ""
    encoding: str = ""  # of texts in the data; empty: UTF-8, or what a byte order mark says
    seed: int = 0
    workers: int = 2
    max_bad_fraction: float = 0.2
    budget: Budget = field(default_factory=Budget)
    split: Split = field(default_factory=Split)
    start: Start = field(default_factory=Start)
    gate: Gate = field(default_factory=Gate)
    columns: Any = field(default_factory=NoColumns)  # which of its columns mean what
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        """Raises UsageError for no worker, fewer than must be, or a share that is none."""
        within(self, "", workers=(1, math.inf), max_bad_fraction=(0, 1), seed=(0, 2**31 - 1))
        within(self.resources, "resources", min_workers=(0, self.workers))

    @property
    def least_workers(self) -> int:
        """How many there must be room for, or training does not begin."""
        return self.resources.min_workers or self.workers

    def overridden(self, **settings: str) -> Self:
        """Apply dotted settings such as `{"budget.epochs": "3"}`.

        Raises UsageError for a name that does not exist or a value of another type.
        """
        recipe = self
        for key, text in settings.items():
            recipe = _with(recipe, key.split("."), text, key)
        return recipe


def within(record: Any, section: str = "spec", /, **bounds: tuple[float, float]) -> None:
    """Raise UsageError for a setting below the least or above the most it may be."""
    for name, (least, most) in bounds.items():
        value = getattr(record, name)
        if not least <= value <= most:
            upper = "" if math.isinf(most) else f" and at most {most:g}"
            key = f"{section}.{name}" if section else name
            raise UsageError(f"{key}={value:g}: expected at least {least:g}{upper}")


def among(record: Any, section: str, /, **choices: tuple[str, ...]) -> None:
    """Raise UsageError for a setting that is none of the words it may be."""
    for name, known in choices.items():
        value = getattr(record, name)
        if value not in known:
            raise UsageError(f"{section}.{name}={value!r}: expected one of {', '.join(known)}")


def as_dict(record: Any) -> dict[str, Any]:
    """A recipe, or a part of one, as plain JSON values; a spec carries its name."""
    values: dict[str, Any] = {}
    if hasattr(type(record), "build") or hasattr(type(record), "fit"):
        values["name"] = type(record).name
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        values[f.name] = as_dict(value) if dataclasses.is_dataclass(value) else value
    return values


def spec_from(values: dict[str, Any], specs: typing.Mapping[str, type[Any]]) -> Any:
    """Rebuild a spec from `as_dict`; raises UsageError when there is none of that name or kind."""
    rest = dict(values)
    name = rest.pop("name", None)
    if name not in specs:
        raise UsageError(f"no spec {name!r}; there are {', '.join(sorted(specs))}")
    try:
        return specs[name](**rest)
    except TypeError as error:
        raise UsageError(f"spec {name!r} is not of this version: {error}") from error


def _with(record: Any, path: list[str], text: str, key: str) -> Any:
    names = [f.name for f in dataclasses.fields(record)]
    head, *rest = path
    if head not in names or (head in ("name", "family") and not rest):
        raise UsageError(f"no setting {key!r}; at {head!r} there are: {', '.join(sorted(names))}")
    current = getattr(record, head)
    if rest and not dataclasses.is_dataclass(current):
        raise UsageError(f"setting {key!r}: {head!r} has no parts; write {head}=value")
    if not rest and dataclasses.is_dataclass(current):
        parts = ", ".join(f"{key}.{f.name}" for f in dataclasses.fields(current))
        raise UsageError(f"setting {key!r} has parts; set one of {parts}")
    new = _with(current, rest, text, key) if rest else _parsed(record, head, text, key)
    return dataclasses.replace(record, **{head: new})


def _parsed(record: Any, name: str, text: str, key: str) -> Any:
    hint = typing.get_type_hints(type(record))[name]
    if isinstance(hint, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    try:
        if hint is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = hint(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"setting {key}={text!r}: expected {hint.__name__}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"setting {key}={text!r}: expected a finite number")
    return value
