"""A warm start: what is kept of a predecessor, what is new, and who is none."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from ray_jobs import artifact
from ray_jobs.errors import TrainingError
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks.neighbours import in_terms_of
from ray_jobs.families.knowledge.vocabulary import UNSEEN, Vocabulary
from ray_jobs.training import warm
from ray_jobs.training.splits import Splits
from tests.knowledge_parts import SMALL, VOCABULARY, arbitrary, asked
from tests.test_train_ray import answers, job

NETWORKS = ["lstm", "attention", "blend"]
LONGER = Vocabulary((*VOCABULARY.items, "i6", "i7"), (*VOCABULARY.skills, "div"))
PAST = [
    {"item": "i1", "skills": ["add"], "correct": 1},
    {"item": "i3", "skills": ["add", "mul"], "correct": 0},
]
KNOWN: dict[str, Any] = {
    "history": PAST,
    "candidates": [{"item": "i2", "skills": ["sub"]}, {"item": "i4"}],
}


def test_a_vocabulary_grows_at_its_end_alone() -> None:
    train = pl.DataFrame({"item": ["z", "i3", "a"], "skills": [["new"], ["add"], ["mul", "more"]]})
    grown = VOCABULARY.extended([train])
    assert grown.items == (*VOCABULARY.items, "z", "a")
    assert grown.skills == (*VOCABULARY.skills, "new", "more")


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_is_kept_answers_as_its_predecessor_did(name: str) -> None:
    before = arbitrary(name)
    before = replace(before, module=deepcopy(before.module))
    for key, value in before.module.state_dict().items():
        if key.endswith("neighbours"):
            value[UNSEEN] = 0.0  # who was never seen keeps no company
    network = before.spec.build(LONGER)
    warm.begin(network, before.module, 1.0)
    after = replace(before, module=network.eval(), vocabulary=LONGER)
    assert asked(after, **KNOWN) == pytest.approx(asked(before, **KNOWN), abs=1e-6)
    # What is new is what was unseen, until it is learnt.
    new: dict[str, Any] = {"history": PAST, "candidates": [{"item": "i6", "skills": ["sub"]}]}
    assert asked(after, **new) == pytest.approx(asked(before, **new), abs=1e-6)


def test_what_is_not_kept_is_drawn_anew() -> None:
    before = arbitrary("lstm")
    torch.manual_seed(1)
    fresh = before.spec.build(LONGER)
    torch.manual_seed(1)
    network = before.spec.build(LONGER)
    warm.begin(network, before.module, 0.7)
    own, theirs, drawn = (
        one.state_dict()["memory.weight_ih_l0"] for one in (network, before.module, fresh)
    )
    torch.testing.assert_close(own, 0.7 * theirs + 0.3 * drawn)
    rows = network.state_dict()["question.item.weight"]
    torch.testing.assert_close(rows[-1], before.module.state_dict()["question.item.weight"][UNSEEN])
    skill = network.state_dict()["question.skill.weight"][-1]
    mean = before.module.state_dict()["question.skill.weight"][2:].mean(dim=0)
    torch.testing.assert_close(skill, mean)


def test_company_of_now_is_told_in_terms_of_before() -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(30, 6, generator=generator)
    before[5] = 0.0
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    own = torch.cat([before, torch.randn(4, 6, generator=generator)])
    told = in_terms_of(before, own @ turn)
    torch.testing.assert_close(told, own, atol=1e-4, rtol=0.0)


def test_who_keeps_no_company_now_keeps_that_of_before() -> None:
    before = arbitrary("lstm")
    network = before.spec.build(LONGER)
    theirs = before.module.state_dict()["question.neighbours"]
    network.question.neighbours[2:5] = theirs[2:5]  # i4 and i5 are met no more
    warm.begin(network, before.module, 1.0)
    own = network.state_dict()["question.neighbours"]
    torch.testing.assert_close(own[2 : len(theirs)], theirs[2:], atol=1e-5, rtol=0.0)


class Counting(nn.Module):
    """A network with a buffer, and nothing to see to."""

    seen: torch.Tensor

    def __init__(self, items: int, seen: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((items, 2), seen))
        self.register_buffer("seen", torch.full((items,), seen))


def test_buffers_of_others_are_taken_as_they_are() -> None:
    own = Counting(3, 0.0)
    warm.begin(own, Counting(2, 1.0), 0.5)
    assert own.seen.tolist() == [1.0, 1.0, 0.0]
    assert own.weight.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (SPECS["rasch"](), "rasch is fitted at one go"),
        (SPECS["attention"](), "it is lstm, and this is attention"),
        (SPECS["lstm"](width=8, neighbours=4), "another shape: width 16"),
        (SPECS["lstm"](width=16, neighbours=4, dropout=0.1), ""),
    ],
)
def test_another_network_is_no_start_and_says_why(spec: Any, says: str) -> None:
    found = warm.misfit(arbitrary("lstm"), spec)
    assert says in found if says else not found


def test_a_family_that_cannot_take_in_new_data_has_no_start() -> None:
    model = arbitrary("lstm")
    other = replace(model, family=replace(model.family, extended=None))
    assert "cannot take in new data" in warm.misfit(other, model.spec)


@dataclass(frozen=True)
class Begun:
    """A predecessor on the store, and the tables of who comes after it."""

    parent: Path
    digest: str
    splits: Path


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    """A small network that knows half of the items."""
    spec = SPECS["lstm"](**SMALL["lstm"])
    known = Vocabulary(tuple(f"item {i}" for i in range(10)), ("skill 0", "skill 1"))
    torch.manual_seed(0)
    digest = artifact.write(
        tmp_path / "parent",
        kind="knowledge",
        spec=spec,
        vocabulary=known,
        module=spec.build(known),
        about={},
    )
    for name, learners, seed in (("train", 30, 0), ("validation", 10, 1)):
        answers(learners, seed).write_parquet(tmp_path / f"{name}.parquet")
    return Begun(tmp_path / "parent", digest, tmp_path)


def of(begun: Begun, **values: Any) -> Any:
    told = {"parent": str(begun.parent), "parent_digest": begun.digest, "kept": 1.0, **values}
    spec = {"name": "lstm", **SMALL["lstm"]}
    return job(begun.splits, begun.splits / "job", **{"spec": spec, **told})


def test_a_job_knows_what_its_predecessor_knew_and_what_is_new(begun: Begun) -> None:
    asked = of(begun)
    splits = Splits.seen(asked, [pl.read_parquet(asked.train)])
    assert splits.vocabulary.items[:10] == tuple(f"item {i}" for i in range(10))
    assert set(splits.vocabulary.items[10:]) == {f"item {i}" for i in range(10, 20)}
    splits.note_vocabulary()
    theirs = artifact.read(begun.parent).module.state_dict()
    own = Splits.of(asked).network().state_dict()
    for name, value in theirs.items():
        if name != "question.neighbours":
            torch.testing.assert_close(own[name][: len(value)], value)
    # Those that do not lead are given what the leader has.
    other = Splits.of(asked).network(prepared=False).state_dict()
    assert not torch.equal(other["memory.weight_ih_l0"], theirs["memory.weight_ih_l0"])


def test_what_lies_where_the_predecessor_lay_is_not_taken_for_it(begun: Begun) -> None:
    asked = of(begun, parent_digest="0" * 64)
    with pytest.raises(TrainingError, match=r"has digest .*, but training was to begin from 000"):
        Splits.seen(asked, [])


def test_a_job_that_cannot_begin_there_says_so(begun: Begun) -> None:
    asked = of(begun, spec={"name": "lstm", "width": 8, "neighbours": 4})
    with pytest.raises(TrainingError, match=r"cannot begin from .*: its network has another shape"):
        Splits.seen(asked, [])
