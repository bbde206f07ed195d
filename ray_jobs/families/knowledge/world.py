"""A world of simulated learners: its laws, and the truth that nobody else may see.

The simulator draws learners from these laws and the Bayes filter inverts them.
Both call the same functions below, so that they cannot differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from ray_jobs import store
from ray_jobs.errors import StoreError, UsageError
from ray_jobs.families.knowledge.table import CLEAN

DAY_S = 86_400
FORMAT = 1

ANSWERS = pl.Schema(
    {
        "learner": pl.String,  # as the school names them, not pseudonyms
        "item": pl.String,
        "time": pl.Int64,  # unix seconds; strictly increasing within a learner
        "correct": pl.Int8,
        "probability": pl.Float64,  # of a correct answer, in truth
    }
)

Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])


@dataclass(frozen=True)
class World:
    """Who learns what, and by which laws; abilities and difficulties are in logits."""

    seed: int = 0
    learners: int = 1200
    items: int = 200
    skills: int = 12
    start: int = 1_756_684_800  # unix seconds at which the calendar opens
    days: int = 120  # length of the calendar
    answers: float = 45.0  # median per learner, before the calendar closes
    answers_spread: float = 0.9  # sd of its logarithm: the tail of drop-out
    session: float = 9.0  # mean answers of a sitting
    late_items: float = 0.1  # share of items that are released late
    late_from: float = 0.8  # of the calendar: from when on they are released
    general_mean: float = -0.5  # ability before practice: what a learner's skills share ...
    general_sd: float = 0.9
    skill_sd: float = 0.8  # ... and what each has of its own
    difficulty_sd: float = 0.9
    discrimination: float = 1.2  # median
    discrimination_sd: float = 0.3  # of its logarithm
    pace: float = 0.2  # gain of the first practice of a skill, median over learners
    pace_sd: float = 0.5  # of its logarithm
    limit: float = 2.5  # where gains by practice end
    practice_noise: float = 0.1  # sd of one gain
    half_life_days: float = 21.0  # of what practice gained
    dirt: float = 0.03  # dirty rows per true answer

    def __post_init__(self) -> None:
        """Raise UsageError for a world that cannot be."""
        if min(self.learners, self.skills, self.days) < 1:
            raise UsageError(f"{self}: learners, skills and days must be at least 1")
        if self.items < self.skills:
            raise UsageError(f"{self.items} items cannot cover {self.skills} skills; give more")
        if not 0 <= self.dirt < 0.5:
            raise UsageError(f"dirt is {self.dirt}; expected a share from 0 to below 0.5")


def faded(gain: Floats, elapsed_s: NDArray[Any], world: World) -> Floats:
    """What is left of a gain by practice after a while without any."""
    return gain * np.exp2(elapsed_s / (-DAY_S * world.half_life_days)).astype(gain.dtype)


def practised(gain: Floats, pace: Floats, noise: Floats, world: World) -> Floats:
    """The gain after one more practice: ever smaller steps towards the limit."""
    return gain + pace * (1.0 - gain / world.limit) + world.practice_noise * noise


def chance(ability: Floats, difficulty: NDArray[Any], discrimination: NDArray[Any]) -> Floats:
    """Probability of a correct answer: two-parameter logistic (Birnbaum, 1968)."""
    # The hyperbolic tangent is the logistic function without its overflow.
    probability: Floats = 0.5 + 0.5 * np.tanh(0.5 * discrimination * (ability - difficulty))
    return probability


@dataclass(frozen=True, eq=False)
class Truth:
    """Everything that was drawn: L learners, I items, S skills."""

    world: World
    skills: tuple[str, ...]
    items: tuple[str, ...]
    item_skills: NDArray[np.bool_]  # (I, S); at least one each
    difficulty: NDArray[np.float64]  # (I,) logits
    discrimination: NDArray[np.float64]  # (I,)
    released: NDArray[np.int64]  # (I,) unix seconds
    learners: tuple[str, ...]
    ability: NDArray[np.float64]  # (L, S) logits, before any practice
    pace: NDArray[np.float64]  # (L,) logits per first practice
    answers: pl.DataFrame  # as ANSWERS; by learner, then time
    planted: dict[str, int]  # rows that cleaning must find, by reason

    def table(self) -> pl.DataFrame:
        """The true answers as a clean table of original ids; buckets just number the learners."""
        names = {item: self.skills_of(i) for i, item in enumerate(self.items)}
        buckets = {learner: i for i, learner in enumerate(self.learners)}
        return (
            self.answers.with_columns(
                skills=pl.Series([names[item] for item in self.answers["item"]]),
                bucket=pl.col("learner").replace_strict(buckets),
                split=pl.lit(None),
                scored=pl.lit(value=True),
                response_s=pl.lit(None),
                about=pl.lit(None),
            )
            .with_row_index("position")
            .select(CLEAN.names())
            .cast(CLEAN)
        )

    def skills_of(self, item: int) -> list[str]:
        """Names of the skills of the item of that number, sorted."""
        return sorted(self.skills[s] for s in np.flatnonzero(self.item_skills[item]))

    def save(self, path: str | Path) -> None:
        """Write it as JSON; keep it outside the folder that ingestion reads."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["world"] = asdict(self.world)
        values["answers"] = self.answers.to_dict(as_series=False)
        data = orjson.dumps({"format": FORMAT, **values}, option=orjson.OPT_SERIALIZE_NUMPY)
        store.write_bytes(str(path), data)

    @classmethod
    def load(cls, path: str | Path) -> Truth:
        """Read what `save` wrote; raises StoreError when it is something else."""
        values = store.read_json(str(path))
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise StoreError(f"{path} is not a truth of format {FORMAT}; simulate again")
        values |= {name: np.array(values[name]) for name in _ARRAYS}
        values |= {name: tuple(values[name]) for name in ("skills", "items", "learners")}
        values["world"] = World(**values["world"])
        values["answers"] = pl.DataFrame(values["answers"], schema=ANSWERS)
        return cls(**values)


_ARRAYS = ("item_skills", "difficulty", "discrimination", "released", "ability", "pace")
