"""What the parts of a report promise, beside what tests of evaluation say: skills by number."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.families.knowledge.slices import slices
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from tests.knowledge_parts import saying_no_more

KNOWN = Vocabulary(("i",), ("a", "b", "c", "d"))
sets = st.sets(st.sampled_from([*KNOWN.skills, "new", "odd"])).map(sorted)


@given(st.lists(sets, min_size=1, max_size=8))
def test_an_answer_is_counted_by_how_many_skills_it_asks_for_and_by_how_it_knows_them(
    asked: list[list[str]],
) -> None:
    table = pl.DataFrame(
        {"learner": "l", "item": "i", "skills": asked, "scored": True},
        schema_overrides={"skills": pl.List(pl.String)},
    )
    found = slices(saying_no_more(table), KNOWN)
    assert found["skill_count"].to_list() == [
        str(len(names)) if len(names) < 3 else "3+" for names in asked
    ]
    known = [
        "all met in training" if {*names} <= {*KNOWN.skills} else "some new" for names in asked
    ]
    assert found["skills"].to_list() == [
        how if names else "none named" for names, how in zip(asked, known, strict=True)
    ]
