"""A prediction id says what was predicted, to whoever reads it, and nothing else under our key."""

from __future__ import annotations

import base64
import re
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key
from ray_jobs.serving import receipt
from ray_jobs.serving.receipt import KEPT, LONGEST
from ray_jobs.target import Target

KEY = Key(bytes(range(32)))
SAID = {
    "version": st.text(max_size=8),
    "learner": st.none() | st.text(max_size=20),
    "predictions": st.lists(
        st.floats(0, 1) | st.lists(st.floats(0, 1), max_size=3), max_size=2 * KEPT
    ),
    "rows": st.lists(
        st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=4)), max_size=2 * KEPT
    ),
    "target": st.none()
    | st.builds(Target, st.just("classes"), st.lists(st.text(max_size=9)).map(tuple)),
}


def signed(said: dict[str, Any]) -> str:
    return receipt.signed(KEY, receipt.made(KEY, service="algebra", **said).encoded())


@settings(deadline=None)
@given(st.fixed_dictionaries(SAID))
def test_an_id_travels_in_any_url_and_comes_back_as_it_was_said(said: dict[str, Any]) -> None:
    begin = int(time.time())
    given_out = signed(said)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", given_out)
    note = receipt.verified(KEY, given_out)
    assert note.version == said["version"]
    assert note.learner == (KEY.alias(said["learner"]) if said["learner"] else None)
    for told, known in zip(note.predictions, said["predictions"][:KEPT], strict=True):
        assert told == pytest.approx(known, abs=5e-5)
    assert note.rows == said["rows"][:KEPT]
    assert note.target == (said["target"] if said["rows"] else None)
    assert note.service == "algebra"
    assert begin <= note.time_s <= time.time()
    assert isinstance(note.time_s, int)


@settings(deadline=None)
@given(st.fixed_dictionaries(SAID), st.integers(0, 999), st.characters(), st.sampled_from([0, 1]))
def test_no_changed_id_says_anything_else(
    said: dict[str, Any], place: int, other: str, width: int
) -> None:
    given_out = signed(said)
    place %= len(given_out)
    changed = given_out[:place] + other + given_out[place + width :]
    with suppress(ContractError):
        assert receipt.verified(KEY, changed) == receipt.verified(KEY, given_out)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from([0, 10, 3_000, 20_000, 100_000]), min_size=1, max_size=KEPT),
    st.sampled_from(["a", '"', "\U0001f600"]),
    st.sampled_from([2, 100, 20_000]),
)
def test_an_id_is_never_too_long_to_come_back_and_notes_the_first(
    sizes: list[int], letter: str, classes: int
) -> None:
    names = tuple(f"class {number}" for number in range(classes))
    said: dict[str, Any] = {
        "version": "7",
        "learner": "ada",
        "predictions": [[1 / classes] * classes if classes > 2 else 0.5] * len(sizes),
        "rows": [{"column": letter * size} for size in sizes],
        "target": Target("classes", names),
    }
    given_out = signed(said)
    assert len(given_out) <= LONGEST
    note = receipt.verified(KEY, given_out)
    assert len(note.rows) == len(note.predictions)
    assert bool(note.rows) == (classes < 20_000), "so many classes leave no room"
    assert note.rows in (said["rows"][: len(note.rows)], [None])
    if sum(sizes) < 3_000 and classes == 2:
        assert note.rows == said["rows"]


def test_two_answers_of_one_moment_have_ids_of_their_own() -> None:
    said: dict[str, Any] = {"version": "1", "learner": None, "predictions": [0.5]}
    assert signed(said) != signed(said)


def test_an_id_of_an_earlier_lyceum_is_told_as_such() -> None:
    for payload in (b'{"v":"7","t":1,"l":null,"p":[0.5]}', b'["0f","algebra","7",1,null,[0.5]]'):
        text = base64.urlsafe_b64encode(payload).decode().rstrip("=")
        with pytest.raises(ContractError, match="earlier Lyceum"):
            receipt.verified(KEY, f"{text}.{KEY.signature(payload)}")


def test_an_id_that_says_all_but_what_could_have_happened_is_read() -> None:
    payload = b'["0f","algebra","7",1,null,[0.5],[{"item":"i"}]]'
    text = base64.urlsafe_b64encode(payload).decode().rstrip("=")
    note = receipt.verified(KEY, f"{text}.{KEY.signature(payload)}")
    assert (note.rows, note.target) == ([{"item": "i"}], None)
