"""Experience API statements (IEEE 9274.1.1) to answers: who did what, with which result, when.

What is said of an answer is read; a statement that keeps not to the standard
comes back as malformed, with the path of its fault as the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from ray_jobs.data.raw import MALFORMED, PLACES, Raw

PARTS = ("actor", "verb", "object")  # of every statement
OPTIONAL = ("result", "context", "timestamp", "stored")
VERBS = "http://adlnet.gov/expapi/verbs/"
ANSWERS = {"answered", "scored"}  # with or without a result
# Answers where they have an outcome, which some of these verbs say themselves.
OUTCOMES = {"passed": 1.0, "mastered": 1.0, "failed": 0.0, "attempted": None, "completed": None}
# Years and months are no fixed time, but none of them is.
NUMBER = r"(\d+(?:[.,]\d+)?)"
DURATION = re.compile(
    rf"P(?:0+Y)?(?:0+M)?(?:{NUMBER}W)?(?:{NUMBER}D)?"
    rf"(?:T(?:{NUMBER}H)?(?:{NUMBER}M)?(?:{NUMBER}S)?)?"
)
UNITS_S = (604_800, 86_400, 3_600, 60, 1)
ROW = pl.Schema(
    {
        "learner": pl.String(),
        "item": pl.String(),
        "skills": pl.String(),
        "correct": pl.String(),
        "time": pl.String(),
        "response_time": pl.String(),
        "file": pl.String(),
        "line": pl.Int64(),
    }
)


class Fault(Exception):  # noqa: N818  # a path, which `_answer` says and `answers` writes down
    """Where a statement keeps not to the standard, such as `result.score.scaled`."""


def recognised(columns: Sequence[str]) -> bool:
    """Whether a table holds statements, their parts as JSON."""
    return set(PARTS) <= set(columns)


def answers(tables: Iterable[Raw], separator: str) -> Iterator[Raw]:
    """The answers among statements; the others are counted, and told of at the end."""
    others: Counter[str] = Counter()
    for table in tables:
        yield _answers(table, separator, others)
    notes = [f"{n} statements {verb} are no answers" for verb, n in others.items()]
    yield Raw(pl.DataFrame(schema=ROW), pl.DataFrame(schema=MALFORMED), tuple(notes))


def _answers(table: Raw, separator: str, others: Counter[str]) -> Raw:
    names = [name for name in (*PARTS, *OPTIONAL) if name in table.rows.columns]
    rows: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    for row in table.rows.select(*names, *PLACES).iter_rows(named=True):
        place = {name: row.pop(name) for name in PLACES}
        try:
            statement = {name: _value(name, row.get(name)) for name in (*PARTS, *OPTIONAL)}
            verb = _verb(statement["verb"])
            correct = _outcome(statement["result"], verb)
            if verb in ANSWERS or (correct is not None and verb in OUTCOMES):
                rows.append({**_answer(statement, separator), "correct": correct, **place})
            else:
                # Of a verb that is not the standard's own, nobody knows what it may say.
                others[f"of the verb {verb}" if ":" not in verb else "of other verbs"] += 1
        except Fault as fault:
            raw = orjson.dumps(row).decode()
            faults.append({**place, "reason": f"statement:{fault}", "raw": raw})
    malformed = pl.concat([table.malformed, pl.DataFrame(faults, schema=MALFORMED)])
    return Raw(pl.DataFrame(rows, schema=ROW), malformed, table.notes)


def _answer(statement: Mapping[str, Any], separator: str) -> dict[str, Any]:
    return {
        "learner": _actor(statement["actor"]),
        "item": _activity("object", statement["object"]),
        "skills": separator.join(_skills(statement["context"], separator)) or None,
        "time": _moment(statement),
        "response_time": _duration(statement["result"]),
    }


def _value(name: str, text: str | None) -> Any:
    """A part of a statement from its JSON; texts were left as they are."""
    if text is None:
        if name in PARTS:
            raise Fault(name)
        return None
    if name in {"timestamp", "stored"}:
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Fault(name) from None
    return _object(name, value)


def _object(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Fault(path)
    return value


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Fault(path)
    return value


def _iri(path: str, value: Any) -> str:
    if ":" not in _text(path, value) or any(c.isspace() for c in value):
        raise Fault(path)
    return str(value)


def _verb(verb: Mapping[str, Any]) -> str:
    """The last part of a verb's IRI where it is one of ADL's, or all of it."""
    return _iri("verb.id", verb.get("id")).removeprefix(VERBS)


def _actor(actor: Mapping[str, Any]) -> str:
    """An agent's one identifier; a group is nobody who learns."""
    if actor.get("objectType", "Agent") != "Agent":
        raise Fault("actor.objectType")
    given = [name for name in ("mbox", "mbox_sha1sum", "openid", "account") if name in actor]
    if len(given) != 1:
        raise Fault("actor")
    (name,) = given
    path = f"actor.{name}"
    if name == "mbox" and not _text(path, actor[name]).startswith("mailto:"):
        raise Fault(path)
    if name != "account":
        return _text(path, actor[name])
    account = _object(path, actor[name])
    home, own = (_text(f"{path}.{part}", account.get(part)) for part in ("homePage", "name"))
    return f"{home}::{own}"


def _activity(path: str, activity: Mapping[str, Any]) -> str:
    if activity.get("objectType", "Activity") != "Activity":
        raise Fault(f"{path}.objectType")
    return _iri(f"{path}.id", activity.get("id"))


def _outcome(result: Mapping[str, Any] | None, verb: str) -> str | None:
    """Success where it is said, or else the score, or else what the verb says; null if nothing."""
    result = result or {}
    success = result.get("success")
    if success is not None:
        if not isinstance(success, bool):
            raise Fault("result.success")
        return str(float(success))
    if "score" in result:
        return str(_credit(_object("result.score", result["score"])))
    said = OUTCOMES.get(verb)
    return None if said is None else str(said)


def _credit(score: Mapping[str, Any]) -> float:
    """A score between 0 and 1: scaled, or raw between its least and its most."""
    given = [name for name in ("scaled", "raw", "min", "max") if name in score]
    numbers = {name: _number(f"result.score.{name}", score[name]) for name in given}
    if "scaled" in numbers:
        if not 0 <= numbers["scaled"] <= 1:
            raise Fault("result.score.scaled")
        return numbers["scaled"]
    if "raw" not in numbers or "max" not in numbers:
        raise Fault("result.score")
    least, most = numbers.get("min", 0.0), numbers["max"]
    if least >= most:
        raise Fault("result.score.max")
    if not least <= numbers["raw"] <= most:
        raise Fault("result.score.raw")
    return (numbers["raw"] - least) / (most - least)


def _number(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Fault(path)
    return float(value)


def _moment(statement: Mapping[str, Any]) -> str | None:
    """When it happened, or else when it was stored."""
    name = "timestamp" if statement["timestamp"] else "stored"
    text = statement[name]
    if text is None:
        return None
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Fault(name) from None
    return str(text)


def _duration(result: Mapping[str, Any] | None) -> str | None:
    """Seconds that the answer took, by an ISO 8601 duration; what is none stays as it is."""
    text = (result or {}).get("duration")
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or not any(found.groups()):
        return None if text is None else str(text)
    parts = zip(UNITS_S, found.groups(), strict=True)
    return str(sum(unit * float(n.replace(",", ".")) for unit, n in parts if n))


def _skills(context: Mapping[str, Any] | None, separator: str) -> Iterator[str]:
    """The categories of the activity; what parts skills from another is written otherwise."""
    path = "context.contextActivities"
    related = _object(path, (context or {}).get("contextActivities") or {})
    given = related.get("category") or []
    for activity in given if isinstance(given, list) else [given]:
        place = f"{path}.category"
        skill = _activity(place, _object(place, activity))
        yield skill.replace(separator, "".join(f"%{byte:02X}" for byte in separator.encode()))
