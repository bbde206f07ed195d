"""What is promised of xAPI: each valid answer is read, and each fault is found at its path."""

from __future__ import annotations

import copy
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.tables import read_parquet
from ray_jobs.families.knowledge import rules
from ray_jobs.families.knowledge.table import Columns
from tests.data_parts import KEY, cleaned, quarantine, short

ADL = "http://adlnet.gov/expapi/verbs/"
MISSING = object()
Statement = dict[str, Any]


def statement(number: int = 0, verb: str = "answered", **result: Any) -> Statement:
    """A valid statement; each number another moment of one of seven learners."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "actor": {"objectType": "Agent", "mbox": f"mailto:learner{number % 7}@school.example"},
        "verb": {"id": f"{ADL}{verb}", "display": {"en": verb}},
        "object": {"id": f"https://school.example/items/{number % 11}"},
        "result": result or {"success": number % 3 > 0},
        "timestamp": f"2026-01-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:"
        f"{number // 60 % 60:02d}:{number % 60:02d}Z",
        "context": {
            "contextActivities": {
                "category": [{"id": f"https://school.example/skills/{number % 3}"}]
            }
        },
    }


# Where a fault is planted, what it is, and the path it is to be found at.
FAULTS: list[tuple[str, Any, str]] = [
    ("actor", MISSING, "actor"),
    ("actor", "somebody", "actor"),
    ("actor", {"objectType": "Agent"}, "actor"),
    ("actor", {"mbox": "mailto:a@b.c", "openid": "https://a.b"}, "actor"),
    ("actor", {"objectType": "Group", "mbox": "mailto:a@b.c"}, "actor.objectType"),
    ("actor.mbox", "learner@school.example", "actor.mbox"),
    ("actor", {"account": {"name": "ann"}}, "actor.account.homePage"),
    ("actor", {"account": {"homePage": "https://a.b", "name": 7}}, "actor.account.name"),
    ("verb", MISSING, "verb"),
    ("verb.id", MISSING, "verb.id"),
    ("verb.id", "answered", "verb.id"),
    ("object", [], "object"),
    ("object.id", "an item", "object.id"),
    ("object.objectType", "StatementRef", "object.objectType"),
    ("result", "right", "result"),
    ("result.success", "true", "result.success"),
    ("result.success", 1, "result.success"),
    ("result", {"score": {"scaled": 1.5}}, "result.score.scaled"),
    ("result", {"score": {"scaled": "1"}}, "result.score.scaled"),
    ("result", {"score": {"raw": 3}}, "result.score"),
    ("result", {"score": {"raw": 12, "max": 10}}, "result.score.raw"),
    ("result", {"score": {"raw": 3, "min": 5, "max": 5}}, "result.score.max"),
    ("result", {"score": 7}, "result.score"),
    ("timestamp", "yesterday", "timestamp"),
    ("context", "algebra", "context"),
    ("context.contextActivities", ["algebra"], "context.contextActivities"),
    (
        "context.contextActivities.category",
        [{"id": "algebra"}],
        "context.contextActivities.category.id",
    ),
]


def broken(whole: Statement, path: str, value: Any) -> Statement:
    changed = copy.deepcopy(whole)
    *parents, last = path.split(".")
    at = changed
    for name in parents:
        at = at[name]
    if value is MISSING:
        del at[last]
    else:
        at[last] = value
    return changed


def lines(statements: list[Statement]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in statements)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.none() | st.sampled_from(FAULTS), min_size=1, max_size=12))
def test_each_fault_is_set_apart_under_its_path_and_no_valid_statement_is(
    planted: list[tuple[str, Any, str] | None],
) -> None:
    whole = [statement(n) for n in range(len(planted) + 2)]
    given_ = whole[:2] + [
        one if fault is None else broken(one, *fault[:2])
        for one, fault in zip(whole[2:], planted, strict=True)
    ]
    with TemporaryDirectory() as folder:
        table = cleaned(Path(folder), {"log.jsonl": lines(given_)})
        found = {line: why for _, line, why, _ in quarantine(table)}
    expected = {n: f"statement:{f[2]}" for n, f in enumerate(planted, start=3) if f is not None}
    assert found == expected
    assert table.kept == len(given_) - len(expected)


@pytest.mark.parametrize(
    ("verb", "result", "correct"),
    [
        ("answered", {"success": True}, 1.0),
        ("answered", {"success": False, "score": {"scaled": 0.4}}, 0.0),
        ("answered", {"score": {"scaled": 0.25}}, 0.25),
        ("scored", {"score": {"raw": 15, "min": 10, "max": 20}}, 0.5),
        ("completed", {"score": {"raw": 3, "max": 4}}, 0.75),
        ("attempted", {"success": True}, 1.0),
        ("passed", {"duration": "PT1M"}, 1.0),
        ("failed", {"duration": "PT1M"}, 0.0),
        ("passed", {"success": True, "score": {"scaled": 0.9}}, 1.0),
    ],
)
def test_the_outcome_is_what_result_or_verb_say(
    verb: str, result: dict[str, Any], correct: float, tmp_path: Path
) -> None:
    log = lines([statement(1, verb, **result), statement(2)])
    table = cleaned(tmp_path, {"log.jsonl": log})
    assert read_parquet(table.table).sort("time")["correct"][0] == pytest.approx(correct)


def test_statements_of_other_verbs_are_counted_and_are_no_answers(tmp_path: Path) -> None:
    others = [statement(3, "experienced"), statement(4, "completed", duration="PT1M")]
    others += [broken(statement(5), "verb.id", "https://w3id.org/xapi/video/verbs/played")]
    table = cleaned(tmp_path, {"log.jsonl": lines([statement(1), statement(2), *others])})
    assert (table.read, table.kept) == (2, 2)
    assert table.notes == [
        "1 statements of the verb experienced are no answers",
        "1 statements of the verb completed are no answers",
        "1 statements of other verbs are no answers",
    ]


def test_an_answer_without_an_outcome_is_set_apart(tmp_path: Path) -> None:
    log = lines([statement(1), statement(2), statement(3, "answered", response="b")])
    assert cleaned(tmp_path, {"log.jsonl": log}).quarantined == {"missing_correct": 1}


@pytest.mark.parametrize(
    ("actor", "learner"),
    [
        ({"mbox": "mailto:a@b.c", "name": "Ann"}, "mailto:a@b.c"),
        ({"mbox_sha1sum": "ebd31e95054c018b10727ccffd2ef2ec3a016ee9"}, None),
        ({"openid": "https://ann.example"}, "https://ann.example"),
        ({"account": {"homePage": "https://lms.example", "name": "7"}}, "https://lms.example::7"),
    ],
)
def test_an_agent_is_known_by_its_identifier_alone(
    actor: dict[str, Any], learner: str | None, tmp_path: Path
) -> None:
    log = lines([broken(statement(n), "actor", actor) for n in (1, 2)])
    (found,) = {who for (who,) in short(cleaned(tmp_path, {"log.jsonl": log}), "learner")}
    assert found == KEY.pseudonym(learner or actor["mbox_sha1sum"])


def test_categories_are_skills_whatever_stands_in_their_names(tmp_path: Path) -> None:
    named = [{"id": "urn:skill:a;b"}, {"id": "urn:skill:c", "objectType": "Activity"}]
    log = lines([broken(statement(n), "context.contextActivities.category", named) for n in (1, 2)])
    table = cleaned(tmp_path / "several", {"log.jsonl": log})
    assert short(table, "skills")[0] == (["urn:skill:a%3Bb", "urn:skill:c"],)
    log = lines(
        [broken(statement(n), "context.contextActivities.category", named[1]) for n in (1, 2)]
    )
    assert short(cleaned(tmp_path / "one", {"log.jsonl": log}), "skills")[0] == (["urn:skill:c"],)
    log = lines([broken(statement(n), "context", MISSING) for n in (1, 2)])
    assert short(cleaned(tmp_path / "none", {"log.jsonl": log}), "skills")[0] == ([],)


def test_without_a_timestamp_the_moment_of_storing_counts(tmp_path: Path) -> None:
    late = broken(statement(1), "timestamp", MISSING) | {"stored": "2026-02-01T00:00:00Z"}
    table = cleaned(tmp_path, {"log.jsonl": lines([statement(2), late])})
    assert max(short(table, "time")) == (1_769_904_000.0,)


def test_of_a_hundred_thousand_mixed_statements_each_is_counted(tmp_path: Path) -> None:
    chance = random.Random(0)
    expected: Counter[str] = Counter()
    given_: list[bytes] = []
    others = repeats = 0
    while len(given_) < 100_000:
        one = statement(len(given_))
        kind = chance.random()
        if kind < 0.05:
            path, value, where = chance.choice(FAULTS)
            given_.append(orjson.dumps(broken(one, path, value)))
            expected[f"statement:{where}"] += 1
        elif kind < 0.07:
            given_.append(orjson.dumps(one)[:-9])
            expected["malformed_line"] += 1
        elif kind < 0.2:
            given_.append(orjson.dumps(one | {"verb": {"id": f"{ADL}experienced"}}))
            others += 1
        elif kind < 0.22:
            given_ += [orjson.dumps(one)] * 2
            repeats += 1
        else:
            given_.append(orjson.dumps(one))
    table = cleaned(tmp_path, {"log.jsonl": b"\n".join(given_)})
    assert table.quarantined == dict(expected)
    assert (table.repeats, table.merged) == (repeats, 0)
    assert table.read == len(given_) - others
    assert table.kept == table.read - sum(expected.values()) - repeats
    assert f"{others} statements of the verb experienced are no answers" in table.notes


def test_names_of_people_lie_in_no_column_but_sealed(tmp_path: Path) -> None:
    named = broken(statement(1), "actor", {"mbox": "mailto:a@b.c", "name": "Ann Example"})
    bad = broken(named, "result", "right")
    cleaned(tmp_path, {"log.jsonl": lines([named, statement(2), bad])}, Columns())
    for path in (tmp_path / "store").rglob("*"):
        assert path.is_dir() or b"Ann Example" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("PT16.5S", 16.5), ("PT2M", 120.0), ("PT1H0M3S", 3603.0), ("P0Y0M0DT0H0M5S", 5.0),
        ("PT1M30,5S", 90.5), ("P1DT1S", None), ("P1Y", None), ("PT", None), ("soon", None),
        ("PT1.2.3S", None), (True, None), (None, None),
    ],
)  # fmt: skip
def test_how_long_an_answer_took_is_read_as_seconds_and_costs_no_answer(
    tmp_path: Path, duration: object, seconds: float | None
) -> None:
    said: dict[str, Any] = {"success": True} | ({"duration": duration} if duration else {})
    log = {"log.jsonl": orjson.dumps(statement(**said))}
    table = cleaned(tmp_path, log, Columns(response_time="result.duration"))
    assert read_parquet(table.table)["response_s"].to_list() == [seconds]
    assert (rules.UNKNOWN in table.notes) == (duration is not None and seconds is None)
