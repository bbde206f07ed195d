"""Promises of every knowledge network: no leak, no influence of company or padding, none refused.

Every test that takes `network` runs over every spec of the registry.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from ray_jobs import artifact
from ray_jobs.families.knowledge.batch import Batch, History, collate, cost, examples
from ray_jobs.families.knowledge.loss import loss, weight
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.networks.blocks import attend, block_attention, forgetting
from ray_jobs.families.knowledge.networks.neighbours import item_vectors
from ray_jobs.families.knowledge.networks.rasch import Rasch, RaschModule
from ray_jobs.families.knowledge.vocabulary import PADDING, UNSEEN, Vocabulary
from ray_jobs.training.optimiser import parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")

ITEMS, SKILLS, STEPS = 12, 4, 23
SMALL: dict[str, dict[str, Any]] = {
    "rasch": {},
    "logistic": {},
    "lstm": {"width": 16, "neighbours": 4},
    # Blocks shorter than the histories, so that what crosses them is tested too.
    "attention": {"width": 16, "neighbours": 4, "block": 4, "heads": 2},
    "blend": {"width": 16, "neighbours": 4, "block": 4, "heads": 2},
}


def toy_table(learners: int = 40, length: int = 30, seed: int = 0) -> pl.DataFrame:
    """Answers of learners of varying skill to items of rising difficulty."""
    random = np.random.default_rng(seed)
    item = random.integers(ITEMS, size=(learners, length))
    ability = random.normal(size=(learners, 1))
    chance = 1 / (1 + np.exp(-(ability + 2.0 - 4.0 * item / (ITEMS - 1))))
    flat = item.ravel()
    return pl.DataFrame(
        {
            "learner": np.repeat([f"learner {i}" for i in range(learners)], length),
            "item": [f"item {i}" for i in flat],
            "skills": [[f"skill {i % SKILLS}"] if i % 5 else [] for i in flat],
            "correct": (random.random(flat.shape) < chance.ravel()).astype(np.float32),
            "time": np.tile(np.arange(length, dtype=float), learners),
            "scored": np.ones(len(flat), bool),
        },
        schema_overrides={"skills": pl.List(pl.String)},
    )


TABLE = toy_table()
VOCABULARY = Vocabulary.of([TABLE])


def made(name: str, **settings: Any) -> nn.Module:
    """A network of a spec with weights that make every input matter."""
    spec = SPECS[name](**{**SMALL[name], **settings})
    torch.manual_seed(0)
    if hasattr(spec, "fit"):
        module = spec.fit(TABLE, toy_table(10, seed=1), VOCABULARY)
    else:
        module = spec.prepare([TABLE], VOCABULARY)
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                nn.init.normal_(parameter, std=0.3)
            if isinstance(part, nn.Embedding):
                nn.init.zeros_(part.weight[PADDING])
    assert isinstance(module, nn.Module)
    return module.eval()


@pytest.fixture(params=sorted(SPECS), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def network(name: str) -> nn.Module:
    return made(name)


def random_history(length: int, seed: int) -> History:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, size=length)
    sets = [np.sort(random.permutation(np.arange(1, SKILLS + 2))[:n]) for n in counts]
    return History(
        items=random.integers(1, ITEMS + 2, size=length),
        skills=np.concatenate([*sets, np.empty(0, np.int64)]).astype(np.int64),
        skill_counts=counts,
        correct=random.integers(0, 2, size=length).astype(np.float32),
        scored=random.random(length) < 0.8,
        times=np.cumsum(random.exponential(3600, size=length)),
    )


def logits_of(module: nn.Module, histories: list[History]) -> Tensor:
    with torch.inference_mode():
        logits = module(collate(histories, VOCABULARY))
    assert isinstance(logits, Tensor)
    return logits[: len(histories), : max(map(cost, histories))]


def turned(history: History, t: int) -> History:
    """The same history with the other answer at step t."""
    correct = history.correct.copy()
    correct[t] = 1.0 - correct[t]
    return dataclasses.replace(history, correct=correct)


def otherwise(history: History, t: int) -> History:
    """The same history with everything after step t replaced."""
    other = random_history(len(history.items), seed=99)
    tags, other_tags = history.skill_counts[: t + 1].sum(), other.skill_counts[: t + 1].sum()
    joined = {
        f.name: np.concatenate([getattr(history, f.name)[: t + 1], getattr(other, f.name)[t + 1 :]])
        for f in dataclasses.fields(History)
    }
    joined["skills"] = np.concatenate([history.skills[:tags], other.skills[other_tags:]])
    return History(**joined)


def leaks(module: nn.Module, history: History) -> set[int]:
    """Steps whose own answer, or anything later, moves the logit at or before them."""
    steps = range(len(history.items))
    changed = [turned(history, t) for t in steps] + [otherwise(history, t) for t in steps]
    logits = logits_of(module, [history, *changed])
    moved = (logits[1:] - logits[0]).abs() > 1e-5  # (2T, T)
    upto = torch.ones(len(steps), len(steps), dtype=torch.bool).tril().repeat(2, 1)
    return {int(i) % len(steps) for i in (moved & upto).any(dim=1).nonzero()}


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_never_influences_its_own_or_an_earlier_prediction(
    network: nn.Module, seed: int
) -> None:
    assert leaks(network, random_history(STEPS, seed)) == set()


class Peeking(nn.Module):
    """A network with a leak planted: it looks one thing up that it may not know."""

    def __init__(self, module: nn.Module, what: str) -> None:
        super().__init__()
        self.module, self.what = module, what

    def forward(self, batch: Batch) -> Tensor:
        seen = {
            "its own answer": batch.correct,
            "the next answer": batch.correct.roll(-1, dims=1),
            "the mean of all answers": batch.correct.mean(dim=1, keepdim=True),
            "the next item": batch.items.roll(-1, dims=1).float(),
            "the last skill": batch.skills[:, STEPS - 1 : STEPS].sum(dim=-1).float(),
        }[self.what]
        logits: Tensor = self.module(batch) + 0.001 * seen
        return logits


@pytest.mark.parametrize(
    "what",
    [
        "its own answer",
        "the next answer",
        "the mean of all answers",
        "the next item",
        "the last skill",
    ],
)
def test_a_planted_leak_is_found(network: nn.Module, what: str) -> None:
    assert leaks(Peeking(network, what), random_history(STEPS, 0))


def test_counts_that_include_the_answer_itself_are_found(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "rasch":
        pytest.skip("rasch reads no counts")
    honest = collate

    def late(histories: list[History], vocabulary: Vocabulary) -> Batch:
        batch = honest(histories, vocabulary)
        return dataclasses.replace(batch, counts=batch.counts.roll(-1, dims=1))

    monkeypatch.setitem(globals(), "collate", late)
    assert leaks(network, random_history(STEPS, 0))


def test_an_answer_influences_later_predictions(network: nn.Module) -> None:
    history = random_history(STEPS, 0)
    before, after = logits_of(network, [history, turned(history, 2)])
    assert (before[3:] - after[3:]).abs().max() > 1e-3


def test_what_is_asked_influences_its_prediction(network: nn.Module) -> None:
    history = random_history(STEPS, 0)
    before, after = logits_of(network, [history, otherwise(history, STEPS - 2)])
    assert abs(before[-1] - after[-1]) > 1e-3


def test_a_history_predicts_the_same_alone_and_in_any_company(network: nn.Module) -> None:
    histories = [random_history(length, length) for length in (1, 3, 4, 5, 8, 9, STEPS, 40)]
    together = logits_of(network, histories)
    reverse = logits_of(network, histories[::-1]).flip(0)
    for row, history in enumerate(histories):
        alone = logits_of(network, [history])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(reverse[row, : len(alone)], alone, atol=1e-5, rtol=0)


def test_a_history_continued_predicts_what_it_did(network: nn.Module) -> None:
    whole = random_history(STEPS, 5)
    for t in (1, 2, 4, 5, 9, STEPS - 1):
        tags = int(whole.skill_counts[:t].sum())
        parts = {f.name: getattr(whole, f.name)[:t] for f in dataclasses.fields(History)}
        start = History(**{**parts, "skills": whole.skills[:tags]})
        expected = logits_of(network, [whole])[0, :t]
        torch.testing.assert_close(logits_of(network, [start])[0], expected, atol=1e-5, rtol=0)


def test_logits_are_one_float_per_step(network: nn.Module) -> None:
    logits = logits_of(network, [random_history(5, 0), random_history(2, 1)])
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32


def test_nobody_and_nothing_unseen_is_refused(network: nn.Module) -> None:
    unseen = History(
        items=np.array([UNSEEN]),
        skills=np.array([UNSEEN]),
        skill_counts=np.array([1]),
        correct=np.zeros(1, np.float32),
        scored=np.ones(1, bool),
        times=np.array([np.nan]),
    )
    without_skills = dataclasses.replace(
        unseen, skills=np.empty(0, np.int64), skill_counts=np.array([0])
    )
    for histories in ([unseen], [without_skills], [unseen, without_skills, random_history(9, 0)]):
        assert logits_of(network, histories).isfinite().all()


def test_strangers_make_histories_of_items_and_skills_the_model_never_saw(
    network: nn.Module,
) -> None:
    strange = TABLE.head(60).with_columns(
        item=pl.lit("strange ") + pl.col("item"), skills=pl.lit(["odd"])
    )
    histories = examples(strange, VOCABULARY)
    assert all((h.items == UNSEEN).all() for h in histories)
    assert logits_of(network, histories).isfinite().all()


def test_the_same_seed_makes_the_same_network(name: str) -> None:
    first, second = made(name), made(name)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    history = random_history(STEPS, 0)
    assert torch.equal(logits_of(first, [history]), logits_of(second, [history]))


def test_an_artifact_predicts_what_its_network_did(name: str, tmp_path: Path) -> None:
    module = made(name)
    spec = SPECS[name](**SMALL[name])
    artifact.write(
        tmp_path, kind="knowledge", spec=spec, vocabulary=VOCABULARY, module=module, about={}
    )
    loaded = artifact.read(tmp_path)
    assert loaded.spec == spec
    history = random_history(STEPS, 0)
    assert torch.equal(logits_of(module, [history]), logits_of(loaded.module, [history]))


def taught(name: str) -> nn.Module:
    """A small network trained on the toy table, or fitted to it."""
    spec = SPECS[name](**SMALL[name])
    if hasattr(spec, "fit"):
        return made(name)
    torch.manual_seed(0)
    module = spec.prepare([TABLE], VOCABULARY)
    batch = collate(examples(TABLE, VOCABULARY), VOCABULARY)
    optimizer = torch.optim.AdamW(parameter_groups(module, 0.01), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(loss(module(batch), batch) / weight(batch))
        optimizer.step()
    assert isinstance(module, nn.Module)
    return module.eval()


def test_a_network_learns_which_items_are_hard_and_who_is_strong(name: str) -> None:
    module = taught(name)
    held_out = toy_table(60, seed=7)
    batch = collate(examples(held_out, VOCABULARY), VOCABULARY)
    with torch.inference_mode():
        figure = (loss(module(batch), batch) / weight(batch)).item()
    share = float(held_out["correct"].mean())  # type: ignore[arg-type]
    constant = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert figure < constant - 0.05


@pytest.fixture(params=["lstm", "attention"])
def blanking(request: pytest.FixtureRequest) -> nn.Module:
    return made(request.param, dropout=0.0, blank=1.0, hint=0.0).train()


def test_an_item_blanked_in_training_is_an_unseen_item_in_service(blanking: nn.Module) -> None:
    history = random_history(STEPS, 3)
    unseen = dataclasses.replace(history, items=np.full_like(history.items, UNSEEN))
    blanked = logits_of(blanking, [history])
    torch.testing.assert_close(blanked, logits_of(blanking.eval(), [unseen]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_without_dropout_and_blanks_training_and_service_predict_alike(name: str) -> None:
    module = made(name, dropout=0.0, blank=0.0, hint=0.0)
    history = random_history(STEPS, 3)
    served = logits_of(module, [history])
    torch.testing.assert_close(logits_of(module.train(), [history]), served)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_every_weight_is_trained_exactly_once(name: str) -> None:
    module = made(name)
    grouped = [p for group in parameter_groups(module, 0.01) for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, module.parameters()))
    batch = collate([random_history(STEPS, 0)], VOCABULARY)
    torch.autograd.backward(loss(module(batch), batch))
    assert [key for key, p in module.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 8, 19])
def test_attention_by_blocks_is_attention_under_a_mask(steps: int) -> None:
    heads, block = 2, 4
    query, key, value = torch.randn(
        3, 2, heads, steps, 8, generator=torch.Generator().manual_seed(0)
    )
    bias = forgetting(heads, block)
    near = torch.full((heads, steps, steps), float("-inf"))
    for t in range(steps):
        for s in range(max(0, (t // block - 1) * block), t + 1):
            near[:, t, s] = bias[:, t % block, block + t % block - (t - s)]
    weights = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5 + near, dim=-1)
    blocks = block_attention(query, key, value, bias)
    torch.testing.assert_close(blocks, weights @ value, atol=1e-5, rtol=1e-4)


def test_attention_forgets_at_another_pace_in_each_head() -> None:
    bias = forgetting(4, 8)
    now = bias[:, 7, 8:]  # what the last step sees of its own block
    assert torch.equal(now[:, -1], torch.zeros(4))
    assert (now.diff(dim=-1) > 0).all()
    assert len(set(now[:, 0].tolist())) == 4


def test_attention_written_out_in_half_precision_reads_and_learns_as_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    bias = forgetting(4, 8)[None]
    told = [torch.randn(3, 4, steps, 16, generator=generator) for steps in (8, 16, 16)]
    results = []
    for kind in (torch.float32, torch.bfloat16):
        query, key, value = (x.to(kind, copy=True).requires_grad_() for x in told)
        read = attend(query, key, value, bias)
        read.square().sum().backward()  # type: ignore[no-untyped-call]
        slopes = [x.grad for x in (query, key, value) if x.grad is not None]
        results.append([x.detach().float() for x in (read, *slopes)])
    for full, half in zip(*results, strict=True):
        assert (full - half).norm() < 0.02 * full.norm()


def test_rasch_finds_which_items_are_hard() -> None:
    module = made("rasch")
    assert isinstance(module, RaschModule)
    order = [VOCABULARY.item(f"item {i}") for i in range(ITEMS)]
    found = module.item_difficulty[order].numpy()
    assert np.corrcoef(found, np.arange(ITEMS))[0, 1] > 0.95


def test_rasch_takes_an_unseen_item_for_as_hard_as_its_skills() -> None:
    module = made("rasch")
    assert isinstance(module, RaschModule)
    history = random_history(1, 0)
    skill = np.array([2])
    unseen = dataclasses.replace(
        history, items=np.array([UNSEEN]), skills=skill, skill_counts=np.array([1])
    )
    expected = -module.skill_difficulty[2]
    torch.testing.assert_close(logits_of(module, [unseen])[0, 0], expected)


def test_rasch_never_lowers_a_skill_for_a_better_answer() -> None:
    module = made("rasch")
    for seed in range(5):
        history = random_history(STEPS, seed)
        for t in range(STEPS - 1):
            worse, better = turned(history, t), history
            if history.correct[t] == 0.0:
                worse, better = better, worse
            low, high = logits_of(module, [worse, better])
            assert (high - low)[t + 1] >= -1e-6


def test_rasch_learns_from_scored_answers_only() -> None:
    context = TABLE.with_columns(scored=pl.lit(value=False), correct=1.0 - pl.col("correct"))
    context = context.with_columns(pl.col("learner") + " again", pl.col("correct").cast(pl.Float32))
    both = Rasch().fit(pl.concat([TABLE, context]), toy_table(10, seed=1), VOCABULARY)
    alone = made("rasch")
    assert isinstance(both, RaschModule)
    assert isinstance(alone, RaschModule)
    # Context does say how common an item is among its skills, which shrinks a little less.
    torch.testing.assert_close(both.item_difficulty, alone.item_difficulty, atol=0.01, rtol=0)


def test_items_that_keep_company_get_similar_vectors() -> None:
    # Learners take turns in the table: being neighbours there is no company.
    table = pl.concat(
        toy_table(1, 6).with_columns(
            learner=pl.lit(f"{i} {topic}"), item=pl.Series([f"{topic}{n}" for n in range(6)])
        )
        for i in range(30)
        for topic in "ag"
    )
    vocabulary = Vocabulary.of([table])
    vectors = nn.functional.normalize(item_vectors([table], vocabulary, 4), dim=1)
    alike = vectors @ vectors.T
    first, second = vocabulary.item("a0"), vocabulary.item("g0")
    assert alike[first, vocabulary.item("a3")] > 0.5
    assert alike[first, second].abs() < 0.1
    assert not vectors[:2].any(), "padding and unseen items keep no company"


def test_item_vectors_read_no_answer() -> None:
    other = TABLE.with_columns(correct=1.0 - pl.col("correct"))
    assert torch.equal(item_vectors([TABLE], VOCABULARY, 4), item_vectors([other], VOCABULARY, 4))


@pytest.mark.parametrize("length", [1, 2])
def test_item_vectors_exist_where_nobody_met_two_items(length: int) -> None:
    table = toy_table(1, length).with_columns(item=pl.lit("the only one"))
    vectors = item_vectors([table], Vocabulary.of([table]), 4)
    assert vectors.shape == (3, 4)
    assert not vectors.any()
