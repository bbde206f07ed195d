"""A prediction id says what was predicted, to whoever reads it, and nothing else under our key."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.errors import ContractError
from ray_jobs.privacy import Key
from ray_jobs.serving import receipt
from ray_jobs.serving.receipt import KEPT

KEY = Key(bytes(range(32)))
SAID = {
    "version": st.text(max_size=8),
    "learner": st.none() | st.text(max_size=20),
    "predictions": st.lists(st.floats(0, 1), max_size=2 * KEPT),
}


@settings(deadline=None)
@given(st.fixed_dictionaries(SAID))
def test_an_id_travels_in_any_url_and_comes_back_as_it_was_said(said: dict[str, object]) -> None:
    begin = int(time.time())
    given_out = receipt.signed(KEY, **said)  # type: ignore[arg-type]
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", given_out)
    note = receipt.verified(KEY, given_out)
    assert note.version == said["version"]
    assert note.learner == (KEY.pseudonym(str(said["learner"])) if said["learner"] else None)
    assert note.predictions == pytest.approx(said["predictions"][:KEPT], abs=5e-5)  # type: ignore[index]
    assert begin <= note.time_s <= time.time()
    assert isinstance(note.time_s, int)


@settings(deadline=None)
@given(st.fixed_dictionaries(SAID), st.integers(0, 999), st.characters(), st.sampled_from([0, 1]))
def test_no_changed_id_says_anything_else(
    said: dict[str, object], place: int, other: str, width: int
) -> None:
    given_out = receipt.signed(KEY, **said)  # type: ignore[arg-type]
    place %= len(given_out)
    changed = given_out[:place] + other + given_out[place + width :]
    with suppress(ContractError):
        assert receipt.verified(KEY, changed) == receipt.verified(KEY, given_out)
