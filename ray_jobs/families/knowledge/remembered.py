"""What a state token holds of a learner, and its way to bytes and back.

Ids in it are those of one version's vocabulary, and what a network keeps is of its own
weights: a token is of use to the version that gave it, and to no other.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ray_jobs.families.knowledge.batch import Carried, History, counted
from ray_jobs.families.knowledge.tallies import TALLIED, Tallies, Tally

FORMAT = 1  # of the bytes; another number for another layout
SECONDS = 3600.0  # of an hour
GROUPS = ("skills", "items", "overall")
GIVEN, WINS, LATEST = (TALLIED.index(name) for name in ("given", "wins", "latest"))


@dataclass(frozen=True)
class Practised:
    """What is remembered of a skill."""

    answers: int
    correct: float  # of them right; partial credit counts in part
    last: float | None  # unix seconds of the last of them whose time is known


@dataclass(frozen=True)
class Remembered:
    """A learner's answers, so far as a model needs them: what is carried, and the T since."""

    carried: Carried | None
    history: History  # the answers since, which must be told again
    names: tuple[str, ...]  # of the skills practised, by ascending id; of UNSEEN it is empty

    @cached_property
    def tallies(self) -> Tallies:
        """What was counted of all its answers."""
        return counted(self.history, self.carried)

    @cached_property
    def latest(self) -> float | None:
        """Unix seconds of the last answer whose time is known."""
        hours = float(np.fmax.reduce(self.tallies.overall.sums[:, LATEST], initial=np.nan))
        return None if math.isnan(hours) else hours * SECONDS

    @cached_property
    def skills(self) -> dict[str, Practised]:
        """What is remembered of each skill that has a name."""
        return {
            name: Practised(
                answers=int(sums[GIVEN]),
                correct=float(sums[WINS]),
                last=None if math.isnan(sums[LATEST]) else round(float(sums[LATEST]) * SECONDS, 3),
            )
            for name, sums in zip(self.names, self.tallies.skills.sums, strict=True)
            if name
        }

    def encoded(self) -> bytes:
        """The bytes that `decoded` takes."""
        arrays = {f"history.{f.name}": getattr(self.history, f.name) for f in fields(History)}
        steps = 0
        if self.carried is not None:
            steps = self.carried.tallies.steps
            arrays["memory"] = self.carried.memory
            for name in GROUPS:
                tally: Tally = getattr(self.carried.tallies, name)
                arrays |= {f"{name}.ids": tally.ids, f"{name}.sums": tally.sums}
        about = [[name, array.dtype.str, *array.shape] for name, array in arrays.items()]
        head = orjson.dumps([FORMAT, steps, self.names, about])
        body = b"".join(array.tobytes() for array in arrays.values())
        return zlib.compress(len(head).to_bytes(4, "little") + head + body, level=1)

    @classmethod
    def decoded(cls, data: bytes) -> Remembered:
        """What `encoded` gave the bytes of; they are taken on trust, as sealed by ourselves.

        Raises ValueError for those of another layout.
        """
        plain = zlib.decompress(data)
        place = 4 + int.from_bytes(plain[:4], "little")
        form, steps, names, about = orjson.loads(plain[4:place])
        if form != FORMAT:
            raise ValueError(
                "made by another release of this platform; get a new one from v1/state"
            )
        arrays: dict[str, NDArray[Any]] = {}
        for name, kind, *shape in about:
            array = np.frombuffer(plain, kind, math.prod(shape), place).reshape(shape).copy()
            arrays[name], place = array, place + array.nbytes
        history = History(**{f.name: arrays[f"history.{f.name}"] for f in fields(History)})
        return cls(_carried(arrays, steps), history, tuple(names))


def _carried(arrays: dict[str, NDArray[Any]], steps: int) -> Carried | None:
    if "memory" not in arrays:
        return None
    tallies = {name: Tally(arrays[f"{name}.ids"], arrays[f"{name}.sums"]) for name in GROUPS}
    return Carried(Tallies(steps=steps, **tallies), arrays["memory"])
