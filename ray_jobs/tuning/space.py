"""Where a search looks: ranges of numbers, and choices, each for a setting of spec or budget.

`parsed` reads what a person wrote; whatever could not be tried is refused there,
before anything starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_jobs.errors import UsageError
from ray_jobs.recipe import Recipe

SECTIONS = ("spec", "budget")  # a search changes how a model learns, never what it is judged on
DECADE = 10.0  # a range this many times as high as it is low is searched by its logarithm
DIGITS = 4  # of a drawn number, so that a person can read and repeat it
FORM = "expected KEY=LOW..HIGH or KEY=A,B,C"


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both among them."""

    low: float
    high: float
    whole: bool = False

    @property
    def log(self) -> bool:
        """Whether equal steps are equal factors: where it spans a decade, above 0."""
        return self.low > 0 and self.high >= DECADE * self.low

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def plain(self, drawn: float) -> float | int:
        """A drawn number as it is tried, and printed."""
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        by = ", by its logarithm" if self.log else ""
        return f"{self.low:g}..{self.high:g}{by}"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(map(text, self.values))


Domain = Range | Choice
Space = Mapping[str, Domain]


def text(value: Any) -> str:
    """A value as `--set` takes it, to the last digit."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_json(space: Space) -> dict[str, dict[str, Any]]:
    """A space as plain JSON values."""
    return {
        key: {"values": list(one.values)} if isinstance(one, Choice) else dataclasses.asdict(one)
        for key, one in space.items()
    }


def from_json(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Domain]:
    """The space that `as_json` wrote down."""
    return {
        key: Choice(tuple(one["values"])) if "values" in one else Range(**one)
        for key, one in values.items()
    }


def parsed(words: Sequence[str], recipe: Recipe) -> dict[str, Domain]:
    """`key=low..high` and `key=a,b,c` as a space of a recipe's settings.

    Raises UsageError for a setting that is not there or cannot be searched, an
    empty range, and any end or choice that the recipe would refuse.
    """
    space: dict[str, Domain] = {}
    for word in words:
        key, separator, told = word.partition("=")
        if not separator or not told:
            raise UsageError(f"--search {word!r}: {FORM}, such as spec.dropout=0..0.6")
        if key in space:
            raise UsageError(f"--search {key} is given twice; name it once")
        space[key] = _domain(key, told, recipe)
    return space


def current(recipe: Recipe, key: str) -> Any:
    """What a recipe has for a dotted setting."""
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def tried(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with the settings of a trial; raises UsageError where they do not go together."""
    return recipe.overridden(**{key: text(value) for key, value in settings.items()})


def _domain(key: str, told: str, recipe: Recipe) -> Domain:
    if key.partition(".")[0] not in SECTIONS:
        allowed = " and ".join(f"{name}.…" for name in SECTIONS)
        raise UsageError(f"--search {key}: only {allowed} can be searched; fix others with --set")
    if ".." in told:
        return _range(key, told, recipe)
    texts = told.split(",")
    values = tuple(dict.fromkeys(_value(recipe, key, one) for one in texts))
    if len(values) < 2:
        raise UsageError(f"--search {key}={told}: one value is no search; fix it with --set")
    return Choice(values)


def _range(key: str, told: str, recipe: Recipe) -> Range:
    low, high = (_value(recipe, key, end) for end in told.split("..", maxsplit=1))
    kind = type(low)
    if kind not in (int, float):
        raise UsageError(
            f"--search {key}={told}: {key} is {kind.__name__}, of which there is no range; name "
            "its values, commas between"
        )
    if not low < high:
        raise UsageError(f"--search {key}={told}: nothing lies between; expected LOW below HIGH")
    return Range(low, high, whole=kind is int)


def _value(recipe: Recipe, key: str, told: str) -> Any:
    try:
        return current(recipe.overridden(**{key: told}), key)
    except UsageError as error:
        raise UsageError(f"--search {key}: {error}") from error
