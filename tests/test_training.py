"""The trainer: order, exactness across workers and restarts, what it refuses, what it records.

Run as a script this file is one worker of two; see `two_workers`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ray_jobs.errors import StoreError, TrainingError, UsageError
from ray_jobs.families import Family
from ray_jobs.recipe import Budget, Resources
from ray_jobs.training import checkpoint, events
from ray_jobs.training.events import Event, Follower
from ray_jobs.training.job import TrainJob
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.optimiser import learning_rate, parameter_groups
from ray_jobs.training.order import epoch_batches, share, step_seed
from ray_jobs.training.shards import Shards, pack
from ray_jobs.training.team import Team
from tests.gloo_parts import finish, leave

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 4  # features of a row of the toy world
TRUTH = np.array([1.5, -2.0, 1.0, 0.0])  # its log-odds are a weighted sum of them


@dataclasses.dataclass(frozen=True)
class Example:
    features: np.ndarray  # (T, WIDTH) float32
    label: np.ndarray  # (T,) float32; 0. or 1.
    scored: bool = True


@dataclasses.dataclass(frozen=True)
class Batch:
    features: Tensor  # (B, T, WIDTH)
    label: Tensor  # (B, T)
    scored: Tensor  # (B, T) float32


class Network(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(16, 1)
        self.spare = nn.Parameter(torch.ones(3, 3))  # never used: must hinder nobody
        self.register_buffer("seen", torch.zeros(()))  # as running statistics: each worker's own

    seen: Tensor  # () rows

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.seen += batch.scored.sum()
        return self.head(self.net(batch.features)).squeeze(-1)  # type: ignore[no-any-return]


def collate(examples: Sequence[Example], _: Any) -> Batch:
    steps = max(len(e.label) for e in examples)
    features = torch.zeros(len(examples), steps, WIDTH)
    label, scored = torch.zeros(len(examples), steps), torch.zeros(len(examples), steps)
    for i, example in enumerate(examples):
        n = len(example.label)
        features[i, :n] = torch.from_numpy(example.features)
        label[i, :n] = torch.from_numpy(example.label)
        scored[i, :n] = float(example.scored)
    return Batch(features, label, scored)


def loss(outputs: Tensor, batch: Batch) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(
        outputs, batch.label, weight=batch.scored, reduction="sum"
    )


def nothing(*_: Any) -> Any:
    raise AssertionError("the loop asked for what it does not need")


def toy() -> Family:
    """A family of which the loop may ask for what it needs, and for nothing else."""
    parts: dict[str, Any] = {field.name: nothing for field in dataclasses.fields(Family)}
    parts |= {"cost": lambda example: len(example.label), "collate": collate, "loss": loss}
    parts |= {"weight": lambda batch: batch.scored.sum()}
    return Family(**parts)


def world(n: int, seed: int = 0) -> list[Example]:
    """Examples of 1 to 30 rows, most of them short, as real histories are."""
    random = np.random.default_rng(seed)
    examples = []
    for steps in np.minimum(random.geometric(0.15, n), 30):
        features = random.normal(size=(steps, WIDTH)).astype(np.float32)
        chance = 1 / (1 + np.exp(-features @ TRUTH))
        examples.append(Example(features, (random.random(steps) < chance).astype(np.float32)))
    return examples


def lesson(n: int = 120, **budget: Any) -> Lesson:
    given = {"epochs": 4, "batch_cost": 200, "learning_rate": 0.02, "weight_decay": 0.0, **budget}
    return Lesson(toy(), None, world(n), world(60, seed=1), Budget(**given), seed=5)


def opposite(of: Lesson) -> Lesson:
    """A train split that contradicts the validation split: learning only makes it worse."""
    train = [dataclasses.replace(e, label=1 - e.label) for e in of.train]
    return dataclasses.replace(of, train=train)


def fresh(of: Lesson, team: Team, dropout: float = 0.5) -> State:
    torch.manual_seed(of.seed)
    return State.of(Network(dropout), of.budget, team)


def ignore(*_: Any) -> None:
    pass


def trained(of: Lesson, team: Team, dropout: float = 0.5) -> dict[str, Tensor]:
    return run(fresh(of, team, dropout), of, team, ignore).module.state_dict()


def interrupted(of: Lesson, team: Team, folder: Path, after: int) -> dict[str, Tensor]:
    """Train, lose everything after some epochs, and go on from the last checkpoint."""

    class LostError(Exception):
        pass

    def save_and_die(state: State, _: dict[str, float]) -> None:
        checkpoint.save(str(folder), state)
        if state.epoch == after:
            raise LostError

    with pytest.raises(LostError):
        run(fresh(of, team), of, team, save_and_die)
    restored = checkpoint.restore(str(folder), fresh(of, team), team.device)
    return run(restored, of, team, ignore).module.state_dict()


def largest_gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if name != "seen")


# --- order


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=80)


@given(lengths, st.integers(1, 200), st.integers(0, 3), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_each_epoch_learns_every_example_once_whoever_computes_it(
    costs: list[int], batch_cost: int, epoch: int, workers: int
) -> None:
    batches = epoch_batches(np.array(costs), batch_cost=batch_cost, seed=1, epoch=epoch)
    shares = [share(batch, rank, workers) for batch in batches for rank in range(workers)]
    assert sorted(i for part in shares for i in part) == list(range(len(costs)))


@given(lengths, st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_a_batch_padded_stays_within_its_cost(costs: list[int], batch_cost: int) -> None:
    for batch in epoch_batches(np.array(costs), batch_cost=batch_cost, seed=1, epoch=0):
        assert len(batch) == 1 or len(batch) * max(costs[i] for i in batch) <= batch_cost


def test_order_follows_from_seed_and_epoch() -> None:
    costs = np.arange(1, 200)

    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = epoch_batches(costs, batch_cost=500, seed=seed, epoch=epoch)
        return [batch.tolist() for batch in batches]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_batches_hold_like_lengths_so_that_little_is_padding() -> None:
    costs = np.random.default_rng(0).geometric(1 / 50, 3000)
    batches = epoch_batches(costs, batch_cost=8192, seed=0, epoch=0)
    computed = sum(len(batch) * max(costs[i] for i in batch) for batch in batches)
    assert costs.sum() / computed > 0.8


def test_random_numbers_differ_by_epoch_step_and_worker() -> None:
    seeds = {
        step_seed(7, epoch=e, step=s, rank=r) for e in range(3) for s in range(4) for r in range(2)
    }
    assert len(seeds) == 3 * 4 * 2


# --- the rate and the weights it moves


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    budget = Budget(epochs=4, warmup_epochs=0.5, learning_rate=1.0)
    rates = [learning_rate(budget, i / 100) for i in range(401)]
    peak = rates.index(max(rates))
    assert peak == 50
    assert rates[peak] == 1.0
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("schedule", "half_way", "end"), [("linear", 0.5, 0), ("constant", 1, 1)])
def test_the_rate_falls_as_its_schedule_says(schedule: str, half_way: float, end: float) -> None:
    budget = Budget(epochs=4, warmup_epochs=1.0, learning_rate=1.0, schedule=schedule)
    assert learning_rate(budget, 0.5) == 0.5
    assert learning_rate(budget, 2.5) == half_way
    assert learning_rate(budget, 4.0) == end


@pytest.mark.parametrize(("name", "value"), [("schedule", "cosin"), ("precision", "float16")])
def test_a_word_that_is_none_is_refused_with_those_there_are(name: str, value: str) -> None:
    asked: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=rf"budget\.{name}='{value}': expected one of .*, "):
        Budget(**asked)


def test_a_budget_shorter_than_its_warm_up_still_learns() -> None:
    assert learning_rate(Budget(epochs=1, warmup_epochs=2.0, learning_rate=1.0), 0.5) == 0.25


def test_only_matrices_decay() -> None:
    groups = parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), 0.1)
    decays = {tuple(p.shape): g["weight_decay"] for g in groups for p in g["params"]}
    assert decays == {(2, 3): 0.1, (2,): 0.0}


def test_a_module_may_name_its_own_groups() -> None:
    class Own(nn.Linear):
        def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
            return [{"params": list(self.parameters()), "weight_decay": 7 * weight_decay}]

    (group,) = parameter_groups(Own(2, 2), 0.5)
    assert group["weight_decay"] == 3.5


# --- learning


def test_a_toy_world_is_learnt_to_its_own_noise() -> None:
    of = lesson(600, epochs=12)
    state = run(fresh(of, Team(), 0.0), of, Team(), ignore)
    features = np.concatenate([e.features for e in of.validation])
    label = np.concatenate([e.label for e in of.validation])
    chance = 1 / (1 + np.exp(-features @ TRUTH))
    ceiling = -np.mean(np.log(np.where(label == 1, chance, 1 - chance)))
    assert state.best_loss < ceiling + 0.02


def test_the_loop_follows_the_rate_from_warm_up_to_the_end() -> None:
    rates: list[float] = []

    def remember(state: State, figures: dict[str, float]) -> None:
        (rate,) = {group["lr"] for group in state.optimizer.param_groups}
        assert rate == figures["learning_rate"]
        rates.append(rate)

    of = lesson(60, epochs=4, warmup_epochs=1.0)
    run(fresh(of, Team()), of, Team(), remember)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * of.budget.learning_rate


def test_the_gradient_is_that_of_the_loss_per_scored_row() -> None:
    of = lesson(20, epochs=1, batch_cost=100_000, clip_norm=1e9)
    batch = collate(of.train, None)
    expected = fresh(of, Team(), 0.0).module
    torch.autograd.backward(loss(expected(batch), batch) / batch.scored.sum())
    learnt = run(fresh(of, Team(), 0.0), of, Team(), ignore).module
    for name, parameter in learnt.named_parameters():
        slope = dict(expected.named_parameters())[name].grad
        known = torch.zeros_like(parameter) if slope is None else slope
        torch.testing.assert_close(parameter.grad, known, atol=1e-6, rtol=1e-4)


def counted(of: Lesson) -> int:
    """How many batches the network is shown in all."""
    seen: list[int] = []

    def spy(examples: Sequence[Example], words: Any) -> Batch:
        seen.append(len(examples))
        return collate(examples, words)

    of = dataclasses.replace(of, family=dataclasses.replace(of.family, collate=spy))
    run(fresh(of, Team()), of, Team(), ignore)
    return len(seen)


@pytest.mark.parametrize("micro_cost", [1, 30, 10_000])
def test_a_batch_computed_in_pieces_teaches_what_it_teaches_at_once(micro_cost: int) -> None:
    whole, pieces = lesson(), lesson(micro_cost=micro_cost)
    lots = [counted(of) for of in (pieces, whole)]
    assert (lots[0] > lots[1]) == (micro_cost < 200)
    learnt = run(fresh(pieces, Team(), 0.0), pieces, Team(), ignore)
    expected = run(fresh(whole, Team(), 0.0), whole, Team(), ignore)
    assert largest_gap(learnt.module.state_dict(), expected.module.state_dict()) < 1e-5
    assert learnt.rows == expected.rows


def test_half_precision_computes_in_it_and_keeps_the_weights_whole() -> None:
    seen: set[torch.dtype] = set()
    of = lesson(precision="bfloat16")

    def spy(outputs: Tensor, batch: Batch) -> Tensor:
        seen.add(outputs.dtype)
        return loss(outputs, batch)

    of = dataclasses.replace(of, family=dataclasses.replace(of.family, loss=spy))
    state = run(fresh(of, Team(), 0.0), of, Team(), ignore)
    assert seen == {torch.bfloat16, torch.float32}, "learnt in one, measured in the other"
    assert {p.dtype for p in state.module.parameters()} == {torch.float32}
    full = run(fresh(lesson(), Team(), 0.0), lesson(), Team(), ignore)
    assert 0 < abs(state.best_loss - full.best_loss) < 0.01


def test_on_a_cpu_precision_is_full_unless_half_is_asked_for() -> None:
    auto, full = (trained(lesson(precision=p), Team()) for p in ("auto", "float32"))
    assert largest_gap(auto, full) == 0


@pytest.mark.parametrize(
    ("precision", "bf16", "half"),
    [
        ("native", True, True),
        ("native", False, False),
        ("auto", True, False),
        ("bfloat16", False, True),
        ("float32", True, False),
    ],
)
def test_native_precision_is_half_where_the_processor_multiplies_it(
    precision: str, *, bf16: bool, half: bool
) -> None:
    assert Team(bf16=bf16).halves(Budget(precision=precision)) is half


def test_a_long_gradient_is_cut_to_its_length_and_a_short_one_left() -> None:
    def step(clip_norm: float) -> dict[str, Tensor]:
        of = lesson(clip_norm=clip_norm, epochs=1, batch_cost=100_000)
        state = run(fresh(of, Team(), 0.0), of, Team(), ignore)
        return {name: p.grad for name, p in state.module.named_parameters() if p.grad is not None}

    def norm(slopes: dict[str, Tensor]) -> float:
        return float(nn.utils.get_total_norm(list(slopes.values())))

    whole = norm(step(1e9))
    assert norm(step(whole * 2)) == pytest.approx(whole)
    assert norm(step(1e-4)) == pytest.approx(1e-4, rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # within torch itself
def test_a_compiled_network_learns_the_same_under_the_same_names() -> None:
    of = lesson(60, epochs=2, compiled=True)
    learnt, plain = trained(of, Team(), 0.0), trained(lesson(60, epochs=2), Team(), 0.0)
    assert largest_gap(learnt, plain) < 1e-5


def test_an_epoch_tells_where_its_time_went() -> None:
    told: list[dict[str, float]] = []
    of = lesson(60, epochs=2)
    run(fresh(of, Team()), of, Team(), lambda _, figures: told.append(figures))
    names = ("data_seconds", "compute_seconds", "communication_seconds", "validation_seconds")
    for figures in told:
        parts = [figures[name] for name in names]
        assert min(parts) >= 0
        assert 0.5 * figures["seconds"] < sum(parts) <= figures["seconds"]


def test_examples_on_disk_teach_what_those_in_memory_teach(tmp_path: Path) -> None:
    of = lesson()
    packed: Any = {}
    for name in ("train", "validation"):
        pack(tmp_path / name, [getattr(of, name)], of.family.cost)
        packed[name] = Shards(tmp_path / name, Example)
    on_disk = dataclasses.replace(of, **packed)
    assert largest_gap(trained(on_disk, Team()), trained(of, Team())) == 0


def test_gradients_are_clipped_to_their_norm() -> None:
    still = lesson(60, clip_norm=1e-12, warmup_epochs=0.0)
    before = fresh(still, Team()).module.state_dict()
    assert largest_gap(trained(still, Team()), before) < 1e-3


def test_the_best_epoch_is_kept_by_validation_loss() -> None:
    seen: list[tuple[float, dict[str, Tensor]]] = []

    def remember(state: State, figures: dict[str, float]) -> None:
        weights = {name: t.clone() for name, t in state.module.state_dict().items()}
        seen.append((figures["validation_loss"], weights))

    of = opposite(lesson(60))
    state = run(fresh(of, Team()), of, Team(), remember)
    losses = [value for value, _ in seen]
    assert losses.index(min(losses)) != len(losses) - 1, "the toy must overfit to show anything"
    assert state.best_epoch == losses.index(min(losses)) + 1
    assert largest_gap(state.best, seen[state.best_epoch - 1][1]) == 0


def test_rows_of_context_are_not_learnt_from() -> None:
    of = lesson(60, epochs=2)
    noise = [dataclasses.replace(e, label=1 - e.label, scored=False) for e in of.train]
    mixed = dataclasses.replace(
        of, train=[e for pair in zip(of.train, noise, strict=True) for e in pair]
    )
    figures: list[dict[str, float]] = []
    state = run(fresh(mixed, Team()), mixed, Team(), lambda _, f: figures.append(f))
    assert state.rows == 2 * sum(len(e.label) for e in of.train)
    assert figures[-1]["train_loss"] < 0.69


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_scored_rows_is_refused(split: str) -> None:
    of = lesson(20)
    silent: Any = {split: [dataclasses.replace(e, scored=False) for e in getattr(of, split)]}
    of = dataclasses.replace(of, **silent)
    with pytest.raises(TrainingError, match=f"{split} split has no scored rows"):
        run(fresh(of, Team()), of, Team(), ignore)


def test_a_loss_that_is_no_number_names_its_epoch_and_step() -> None:
    of = lesson(120)
    todo = epoch_batches(
        np.array([len(e.label) for e in of.train]), batch_cost=200, seed=of.seed, epoch=0
    )
    bad = list(of.train)
    victim = todo[2][0]
    bad[victim] = dataclasses.replace(bad[victim], features=bad[victim].features * np.inf)
    of = dataclasses.replace(of, train=bad)
    with pytest.raises(TrainingError, match=r"epoch 1, step 3; lower budget\.learning_rate"):
        run(fresh(of, Team()), of, Team(), ignore)


# --- exactness


def test_the_same_seed_gives_the_same_weights() -> None:
    assert largest_gap(trained(lesson(), Team()), trained(lesson(), Team())) == 0


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_ends_bit_by_bit_where_an_undisturbed_one_does(
    tmp_path: Path, after: int
) -> None:
    undisturbed = trained(lesson(), Team())
    assert largest_gap(interrupted(lesson(), Team(), tmp_path, after), undisturbed) == 0


def test_two_workers_learn_what_one_learns_and_resume_exactly(tmp_path: Path) -> None:
    two_workers(tmp_path)
    together = torch.load(tmp_path / "together.pt", weights_only=True)
    steps, alone = few_examples(Team())
    assert steps >= 20
    assert largest_gap(together, alone.module.state_dict()) < 1e-5
    assert largest_gap(together, fresh(lesson(), Team()).module.state_dict()) > 0.01
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["resumed"] == told["undisturbed"]
    assert told["ranks_differ"] == 0
    assert told["rows"] == alone.rows
    assert told["best_loss"] == pytest.approx(alone.best_loss, abs=1e-6)
    first, second = [(tmp_path / f"told-{rank}.txt").read_text() for rank in (0, 1)]
    assert first == ""
    assert second.startswith(
        "worker 1 sees another state of the checkpoint than worker 0; the stor"
    )


def few_examples(team: Team) -> tuple[int, State]:
    """Twenty clipped steps and more without dropout, some of one example: one worker has none."""
    of = lesson(21, batch_cost=24, epochs=4, clip_norm=0.05)
    costs = np.array([len(e.label) for e in of.train])
    batches = [
        epoch_batches(costs, batch_cost=24, seed=of.seed, epoch=e) for e in range(of.budget.epochs)
    ]
    assert any(len(batch) == 1 for epoch in batches for batch in epoch)
    return sum(map(len, batches)), run(fresh(of, team, 0.0), of, team, ignore)


def two_workers(folder: Path) -> None:
    """Run this file twice, as the two workers of one training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.test_training", str(folder)],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)


def be_a_worker(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    team = Team(torch.distributed.get_rank(), 2)
    _, state = few_examples(team)
    undisturbed = trained(lesson(), team)
    vector = torch.cat([tensor.flatten() for tensor in undisturbed.values()])
    others = vector.clone()
    team.agree([others])
    gap = (vector - others).abs().max()
    torch.distributed.all_reduce(gap)
    mine = folder / str(team.rank)
    mine.mkdir()
    told = {
        "undisturbed": digest(undisturbed),
        "resumed": digest(interrupted(lesson(), team, mine, after=2)),
        "ranks_differ": float(gap),
        "best_loss": state.best_loss,
        "rows": state.rows,
    }
    (folder / f"told-{team.rank}.txt").write_text(sees_otherwise(team))
    if team.leads:
        torch.save(state.module.state_dict(), folder / "together.pt")
        (folder / "told.json").write_text(json.dumps(told))
    leave()
    finish()


def sees_otherwise(team: Team) -> str:
    """What a worker says when all see the same of one thing, and another state of the next."""
    team.check_equal(7, "the first thing")
    try:
        team.check_equal(team.rank, "the checkpoint")
    except StoreError as error:
        return str(error)
    return ""


def digest(weights: dict[str, Tensor]) -> list[str]:
    return [tensor.numpy().tobytes().hex() for tensor in weights.values()]


def test_a_restored_state_is_the_saved_one(tmp_path: Path) -> None:
    of = opposite(lesson(60))
    state = run(fresh(of, Team()), of, Team(), ignore)
    checkpoint.save(str(tmp_path), state)
    restored = checkpoint.restore(str(tmp_path), fresh(of, Team()), Team().device)
    assert largest_gap(restored.best, state.best) == 0
    assert largest_gap(restored.best, state.module.state_dict()) > 0
    for name in checkpoint.NUMBERS:
        assert getattr(restored, name) == getattr(state, name), name


def test_a_save_that_is_cut_short_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = lesson(20, epochs=1)
    state = run(fresh(of, Team()), of, Team(), ignore)
    checkpoint.save(str(tmp_path), state)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state.epoch = 2
    with pytest.raises(StoreError, match="no space"):
        checkpoint.save(str(tmp_path), state)
    assert checkpoint.restore(str(tmp_path), fresh(of, Team()), Team().device).epoch == 1


def three_epochs(folder: Path) -> Lesson:
    of = lesson(20, epochs=3)
    run(fresh(of, Team()), of, Team(), lambda state, _: checkpoint.save(str(folder), state))
    return of


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    three_epochs(tmp_path)
    assert [Path(uri).name for uri in checkpoint.saved(str(tmp_path))] == [
        "state-000003.pt", "state-000002.pt",
    ]  # fmt: skip


@pytest.mark.parametrize(("damaged", "left"), [(1, 2), (2, 0)])
def test_training_goes_on_from_the_newest_checkpoint_that_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: int, left: int
) -> None:
    of = three_epochs(tmp_path)
    for uri in checkpoint.saved(str(tmp_path))[:damaged]:
        os.truncate(uri, Path(uri).stat().st_size - 100)
    with caplog.at_level(logging.WARNING, "ray_jobs"):
        restored = checkpoint.restore(str(tmp_path), fresh(of, Team()), Team().device)
    assert restored.epoch == left
    assert len(caplog.records) == damaged
    assert "state-000003.pt is damaged; going on from" in caplog.text
    undisturbed = run(fresh(of, Team()), of, Team(), ignore)
    learnt = run(restored, of, Team(), ignore)
    assert largest_gap(learnt.module.state_dict(), undisturbed.module.state_dict()) == 0


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    checkpoint.save(str(tmp_path), State.of(nn.Linear(2, 2), Budget(), Team()))
    with pytest.raises(StoreError, match=r"state-000000\.pt is of another network; remove it"):
        checkpoint.restore(str(tmp_path), fresh(lesson(20), Team()), Team().device)


# --- events


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "run" / "events.jsonl")
    assert events.read(uri) == []
    written = [
        Event("started", 1, detail={"workers": 2}),
        Event("epoch", 1, 1, {"train_loss": float(np.float32(0.5))}),
        Event("finished", 1, 1, detail={"digest": "d"}),
    ]
    for event in written:
        events.append(uri, event)
    found = events.read(uri)
    assert [e.kind for e in found] == ["started", "epoch", "finished"]
    assert found[0] == written[0]
    assert found[1].metrics["train_loss"] == 0.5


def test_a_store_without_append_keeps_all_lines() -> None:
    uri = "memory://events-test/events.jsonl"
    for step in (1, 2, 3):
        events.append(uri, Event("epoch", 1, step))
    assert [e.step for e in events.read(uri)] == [1, 2, 3]


def test_a_line_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events.append(str(path), Event("epoch", 1, 1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    found, offset = events.tail(str(path))
    assert (len(found), offset) == (1, len(whole))
    path.write_bytes(whole + whole)
    found, offset = events.tail(str(path), offset)
    assert (len(found), offset) == (1, 2 * len(whole))


def test_half_a_line_left_by_a_dead_writer_costs_no_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "events.jsonl")
    events.append(uri, Event("epoch", 1, 1))
    with Path(uri).open("ab") as file:
        file.write(b'{"kind":"epo')
    events.append(uri, Event("epoch", 2, 2))
    assert [e.step for e in events.read(uri)] == [1, 2]
    assert events.next_attempt(uri) == 3


def test_a_step_done_twice_counts_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "events.jsonl")
    follower = Follower(uri)
    for attempt, step in ((1, 1), (1, 2), (2, 2), (2, 3)):
        events.append(uri, Event("epoch", attempt, step))
    assert {s: e.attempt for s, e in events.by_step(events.read(uri)).items()} == {1: 1, 2: 2, 3: 2}
    assert [e.step for e in follower.poll()] == [1, 2, 3]
    assert follower.poll() == []


# --- what it refuses before it starts


def job(tmp_path: Path, **values: Any) -> TrainJob:
    given: dict[str, Any] = {
        "name": "toy",
        "family": "knowledge",
        "spec": {"name": "none"},
        "train": str(tmp_path / "train.parquet"),
        "validation": str(tmp_path / "validation.parquet"),
        "output": str(tmp_path / "out"),
        "seed": 0,
        "workers": 2,
        "budget": Budget(),
        "resources": Resources(),
        "about": {},
    }
    return TrainJob(**{**given, **values})


def test_more_workers_than_the_cluster_holds_are_refused_with_the_numbers(tmp_path: Path) -> None:
    from ray_jobs.training.room import must_fit

    asked = job(tmp_path, workers=6)
    said = r"6 workers with 0\.75 CPU .* has 2 CPU on 1 node.*room for 2; use fewer \(--workers 2\)"
    with pytest.raises(TrainingError, match=said):
        must_fit(asked.resources, 6, [{"CPU": 2.0}])
    must_fit(asked.resources, 2, [{"CPU": 2.0}])


def test_a_worker_must_fit_on_one_node(tmp_path: Path) -> None:
    from ray_jobs.training.room import must_fit

    asked = job(tmp_path, resources=Resources(worker_cpus=3))
    with pytest.raises(TrainingError, match=r"room for 0; claim less each .*worker_cpus"):
        must_fit(asked.resources, 1, [{"CPU": 2.0}, {"CPU": 2.0}])


def test_gpus_that_are_not_there_are_refused(tmp_path: Path) -> None:
    from ray_jobs.training.room import must_fit

    asked = job(tmp_path, resources=Resources(worker_gpus=1))
    with pytest.raises(TrainingError, match=r"8 CPU and 0 GPU .*worker_gpus"):
        must_fit(asked.resources, 2, [{"CPU": 8.0}])


def test_a_relative_place_is_refused_since_workers_stand_elsewhere(tmp_path: Path) -> None:
    from ray_jobs.training.driver import train

    with pytest.raises(TrainingError, match="out is relative"):
        train(job(tmp_path, output="out"))


def test_a_job_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = job(tmp_path, budget=Budget(epochs=3))
    assert TrainJob.load(saved.save()) == saved


if __name__ == "__main__":
    be_a_worker(Path(sys.argv[1]))
