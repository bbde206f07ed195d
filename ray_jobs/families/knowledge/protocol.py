"""How figures of knowledge tracing are taken: N always, K1 beside a paper that was measured so.

Many papers are on K1's scale, which is higher for the same model: an answer
under two skills is two rows there, and the second has seen how the first came out.
"""

from __future__ import annotations

from ray_jobs.families import Protocol
from ray_jobs.families.knowledge.table import Columns

N = Protocol(
    words="N: one row per answer, its skills kept as a set; each answer of every test "
    "learner is predicted from strictly earlier answers",
    rows="answers",
)
K1 = Protocol(
    words="K1: one row per skill of an answer; each row of every test learner is predicted from "
    "all earlier rows, those of the same answer among them, so that its outcome leaks; only for "
    "comparison with published figures",
    rows="rows of answers",
    barred="protocol K1 leaks outcomes and is only for comparison with published figures",
)
OF = {"N": N, "K1": K1}


def protocol(columns: Columns) -> Protocol:
    """The protocol of a recipe, by its columns."""
    return OF[columns.protocol]
