"""Divided among workers a network learns what it learns whole, and goes on wherever it is taken.

Run as a module this file is one of several workers; see `together`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ray_jobs import remote, store
from ray_jobs.errors import StoreError, TrainingError, UsageError
from ray_jobs.families import family
from ray_jobs.recipe import Budget
from ray_jobs.training import parts, pieces
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.order import epoch_batches, filled, share
from ray_jobs.training.sharded import Objective, divide, gathered, here, most_parts, units
from ray_jobs.training.team import Team
from tests import test_training as toy
from tests.gloo_parts import finish, leave
from tests.s3_parts import Server
from tests.test_two_workers import EXACT, NETWORKS
from tests.test_two_workers import lesson as family_lesson

pytestmark = pytest.mark.usefixtures("one_thread")

FEW: dict[str, Any] = {"batch_cost": 40, "epochs": 4, "clip_norm": 0.05, "micro_cost": 15}
Told = dict[str, Any]


class Block(nn.Module):
    """What a transformer repeats."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.mixed(self.norm(x)).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: Tensor = x + self.out(x)
        return result


class Transformer(nn.Module):
    """(B, T, WIDTH) → logits (B, T)."""

    def __init__(self, block: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.inner = nn.Linear(toy.WIDTH, 16)
        self.layers = nn.ModuleList(block() for _ in range(2))
        self.head = nn.Linear(16, 1)
        self.spare = nn.Parameter(torch.ones(3, 3))  # never used: must hinder nobody
        self.register_buffer("seen", torch.zeros(()))  # as running statistics: each worker's own

    seen: Tensor  # () rows

    def forward(self, batch: toy.Batch) -> Tensor:
        if self.training:
            self.seen += batch.scored.sum()
        x = self.inner(batch.features)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(x).squeeze(-1)
        return logits


def lesson(*, sharded: bool = True, **budget: Any) -> Lesson:
    """Twenty clipped steps and more, in pieces, some of one example: some workers have none."""
    return toy.lesson(25, sharded=sharded, **{**FEW, **budget})


def fresh(of: Lesson, team: Team, network: Callable[[], nn.Module] = Transformer) -> State:
    torch.manual_seed(of.seed)
    return State.of(network(), of.budget, team)


def learnt(state: State, of: Lesson, team: Team, folder: Path | None = None) -> list[list[float]]:
    """Train to the end; the losses of each epoch. Every state is kept where there is a folder."""
    told: list[list[float]] = []

    def note(state: State, figures: dict[str, float]) -> None:
        told.append([figures["train_loss"], figures["validation_loss"]])
        if folder is not None:
            parts.save(str(folder), state, team)
            # What stands in a folder of its own, another number of workers may go on from.
            if team.leads:
                shutil.copytree(folder, f"{folder}-{state.epoch}")

    run(state, of, team, note)
    return told


def together(folder: Path) -> None:
    """Run this file as three workers: two of them learn, then all go on; each leaves its word."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = [str(probe.getsockname()[1]) for probe in (one, other)]
    said = [folder / f"said-{rank}.txt" for rank in range(3)]
    workers = [started(folder, rank, ports, path) for rank, path in enumerate(said)]
    until = time.monotonic() + 400
    while any(worker.poll() is None for worker in workers):
        # Whoever waits for one that failed would wait for long.
        if any(worker.returncode for worker in workers) or time.monotonic() > until:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    words = "\n".join(path.read_text() for path in said)
    assert [worker.returncode for worker in workers] == [0, 0, 0], words


def started(folder: Path, rank: int, ports: list[str], said: Path) -> subprocess.Popen[bytes]:
    with said.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.test_sharded", str(folder), str(rank), *ports],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent.parent,
            stderr=file,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Told]:
    """What two workers tell; three have gone on since from what they had learnt."""
    together(folder)
    return [json.loads((folder / f"two-{rank}.json").read_text()) for rank in (0, 1)]


# --- what two workers do, and what is seen of it


def learn(folder: Path, team: Team) -> Told:
    of = lesson()
    state = fresh(of, team)
    told: Told = {"share": share_of_state(state), "blocks": len(units(state.module))}
    told["sharded"] = learnt(state, of, team, folder / "states")
    best = gathered(state.best, team)
    if team.leads:
        torch.save(best, folder / "best.pt")
    told |= {"best_epoch": state.best_epoch, "rows": state.rows, "seen": float(here_seen(state))}
    (told["steps"],) = {float(moments["step"]) for moments in state.optimizer.state.values()}
    whole = fresh(lesson(sharded=False), team)
    told["replicated"] = learnt(whole, lesson(sharded=False), team)
    told["seen_replicated"] = float(here_seen(whole))
    told["half"] = [half(team, sharded=s) for s in (True, False)]
    told["resumed"], told["undisturbed"] = resumed(folder / "resumed", team)
    told["damaged"] = damaged(folder / "states-4", team)
    told["refused"] = [refused(team, network) for network in (Reaching, Recording)]
    told["families"] = {f"{kind} {name}": both_ways(kind, name, team) for kind, name in NETWORKS}
    return told


def here_seen(state: State) -> Tensor:
    return dict(state.module.named_buffers())["seen"]


def share_of_state(state: State) -> float:
    """How much of weights and best weights a worker holds."""
    weights = [*state.module.parameters(), *state.best.values()]
    return sum(here(w).numel() for w in weights) / sum(w.numel() for w in weights)


def test_divided_among_two_it_learns_what_it_learns_whole(two: list[Told]) -> None:
    of = lesson(sharded=False)
    costs = np.array([len(e.label) for e in of.train])
    steps = [epoch_batches(costs, batch_cost=40, seed=of.seed, epoch=e) for e in range(4)]
    assert sum(map(len, steps)) >= 20
    assert any(len(batch) == 1 for epoch in steps for batch in epoch), "a worker without a share"
    counts = [
        (len(filled(share(b, 0, 2), costs, 15)), most_parts(b, costs, at_once=15, world=2))
        for epoch in steps
        for b in epoch
    ]
    assert any(first < most for first, most in counts), "the first worker, too, must keep step"
    alone = learnt(fresh(of, Team()), of, Team())
    np.testing.assert_allclose(two[0]["sharded"], alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(two[0]["sharded"], two[0]["replicated"], rtol=0, atol=1e-6)
    assert two[0]["sharded"] == two[1]["sharded"]
    assert alone[-1][0] < alone[0][0] - 0.01, "nothing was learnt"
    assert two[0]["seen"] == two[0]["seen_replicated"], "company leaves no trace in statistics"
    assert two[0]["rows"] == 4 * sum(len(e.label) for e in of.train)


def test_a_worker_holds_its_share_and_no_more(two: list[Told]) -> None:
    assert [told["blocks"] for told in two] == [2, 2]
    assert all(0.45 < told["share"] < 0.55 for told in two)
    assert sum(told["share"] for told in two) == pytest.approx(1.0, abs=0.01)


def both_ways(kind: str, name: str, team: Team) -> list[list[list[float]]]:
    """The losses of a family's network, divided and not, with nothing dropped.

    Wide enough to have blocks of its own; what else is drawn, a worker draws alike both ways.
    """
    of, spec = family_lesson(kind), family(kind).specs[name]()
    known = {f.name for f in fields(spec)}
    exact = {key: value for key, value in EXACT.items() if key in known and key != "hint"}
    wide: Any = replace(spec, **{**exact, "width": 96} if "width" in known else exact)
    told = []
    for sharded in (True, False):
        budget = replace(of.budget, sharded=sharded, epochs=1)
        torch.manual_seed(0)
        state = State.of(wide.build(of.vocabulary), budget, team)
        told.append(learnt(state, replace(of, budget=budget), team))
    return told


def test_every_network_of_every_family_can_be_divided(two: list[Told]) -> None:
    assert two[0]["families"].keys() == {f"{kind} {name}" for kind, name in NETWORKS}
    for name, (divided, whole) in two[0]["families"].items():
        np.testing.assert_allclose(divided, whole, rtol=0, atol=1e-5, err_msg=name)


def half(team: Team, *, sharded: bool) -> tuple[float, list[str]]:
    of = lesson(sharded=sharded, precision="bfloat16")
    state = fresh(of, team)
    told = learnt(state, of, team)
    return told[-1][1], sorted({str(p.dtype) for p in state.module.parameters()})


def test_half_precision_divided_learns_as_it_does_whole(two: list[Told]) -> None:
    (divided, kept), (whole, _) = two[0]["half"]
    assert kept == ["torch.float32"], "weights are kept whole"
    assert abs(two[0]["sharded"][-1][1] - divided) > 0, "computed in it"
    assert abs(divided - whole) < 0.005


# --- states in parts


def resumed(folder: Path, team: Team) -> tuple[list[str], list[str]]:
    """This worker's share of the weights, with dropout: of a run that was lost, and of another."""
    of = lesson(micro_cost=0)

    class LostError(Exception):
        pass

    def save_and_die(state: State, _: dict[str, float]) -> None:
        parts.save(str(folder), state, team)
        if state.epoch == 2:
            raise LostError

    def dropping() -> nn.Module:
        return toy.Network(dropout=0.5)

    with pytest.raises(LostError):
        run(fresh(of, team, dropping), of, team, save_and_die)
    state = parts.restore(str(folder), fresh(of, team, dropping), team)
    assert state.epoch == 2
    undisturbed = fresh(of, team, dropping)
    learnt(state, of, team)
    learnt(undisturbed, of, team)
    return bits(state), bits(undisturbed)


def bits(state: State) -> list[str]:
    return [here(w).numpy().tobytes().hex() for w in state.module.state_dict().values()]


def test_as_many_workers_go_on_to_the_same_bits(two: list[Told]) -> None:
    for told in two:
        assert told["resumed"] == told["undisturbed"]
    assert two[0]["resumed"] != two[1]["resumed"]


def go_on(folder: Path, team: Team) -> Told:
    of, read = lesson(), [0]

    @contextmanager
    def counted(uri: str) -> Iterator[Any]:
        with remote.opened(uri) as file:

            def some(n: int) -> bytes:
                read.append(n)
                data: bytes = file.read(n)
                return data

            yield SimpleNamespace(seek=file.seek, read=some)

    with pytest.MonkeyPatch.context() as patch:
        # Where digests are looked at files are read too, but by another module.
        patch.setattr(pieces, "remote", SimpleNamespace(opened=counted))
        state = parts.restore(str(folder / "states-2"), fresh(of, team), team)
    told = {"from": state.epoch, "losses": learnt(state, of, team), "read": sum(read)}
    return told | {"best_epoch": state.best_epoch}


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_workers_goes_on_to_the_same_figures(
    two: list[Told], folder: Path, world: int
) -> None:
    told = (
        go_on(folder, Team()) if world == 1 else json.loads((folder / "three-0.json").read_text())
    )
    assert told["from"] == 2
    np.testing.assert_allclose(told["losses"], two[0]["sharded"][2:], rtol=0, atol=1e-6)
    assert told["best_epoch"] == two[0]["best_epoch"]


def test_a_worker_reads_of_a_state_what_it_holds_and_no_more(two: list[Told], folder: Path) -> None:
    read = [json.loads((folder / f"three-{rank}.json").read_text())["read"] for rank in range(3)]
    whole = sum(p.stat().st_size for p in (folder / "states-2" / "state-000002").glob("?" * 64))
    assert max(read) < 0.5 * whole
    assert whole <= sum(read) < 1.1 * whole, "what is not divided, all read"


def test_states_lie_on_s3_as_on_a_disk(s3: Server) -> None:
    of, url = lesson(epochs=3), s3.bucket()
    state = fresh(of, Team())
    run(state, of, Team(), lambda state, _: parts.save(url, state, Team()))
    assert [uri.removeprefix(f"{url}/") for uri in parts.saved(url)] == [
        "state-000003", "state-000002",
    ]  # fmt: skip
    store.remove(next(f"{url}/{name}" for name in store.sizes(url) if re.search(r"3/\w{64}", name)))
    assert parts.restore(url, fresh(of, Team()), Team()).epoch == 2


def test_what_two_wrote_one_reads_bit_by_bit(two: list[Told], folder: Path) -> None:
    state = parts.restore(str(folder / "states-4"), fresh(lesson(), Team()), Team())
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best.keys() == state.best.keys()
    assert all(torch.equal(best[name], state.best[name]) for name in best)
    assert state.best_loss == min(loss for _, loss in two[0]["sharded"])
    assert state.rows == two[0]["rows"]
    assert {float(s["step"]) for s in state.optimizer.state.values()} == {two[0]["steps"]}


def test_the_last_two_states_are_kept_and_what_was_never_sealed_goes(
    two: list[Told], folder: Path, tmp_path: Path
) -> None:
    names = [Path(uri).name for uri in parts.saved(str(folder / "states-4"))]
    assert names == ["state-000004", "state-000003"]
    shutil.copytree(folder / "states-4", tmp_path, dirs_exist_ok=True)
    (tmp_path / "state-000004" / "seal").unlink()
    of = lesson()
    state = parts.restore(str(tmp_path), fresh(of, Team()), Team())
    state.epoch = 9
    parts.save(str(tmp_path), state, Team())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-000003", "state-000009"]


def truncate(newest: Path) -> None:
    path = part_of(newest)
    os.truncate(path, path.stat().st_size - 100)


def flip(newest: Path) -> None:
    path = part_of(newest)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def lose(newest: Path) -> None:
    part_of(newest).unlink()


def never_seal(newest: Path) -> None:
    """All parts are there; whoever should have sealed them was killed."""
    (newest / "seal").unlink()


def crack(newest: Path) -> None:
    seal = newest / "seal"
    seal.write_bytes(seal.read_bytes().replace(b"float32", b"float16", 1))


def part_of(newest: Path, n: int = 0) -> Path:
    return sorted(p for p in newest.iterdir() if p.name != "seal")[n]


@pytest.mark.parametrize("harm", [truncate, flip, lose, never_seal, crack])
def test_a_state_that_is_not_whole_gives_way_to_the_one_before(
    two: list[Told],
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
) -> None:
    shutil.copytree(folder / "states-4", tmp_path, dirs_exist_ok=True)
    harm(tmp_path / "state-000004")
    with caplog.at_level(logging.WARNING, "ray_jobs"):
        state = parts.restore(str(tmp_path), fresh(lesson(), Team()), Team())
    assert state.epoch == 3
    warned = "state-000004 is damaged; going on from what was saved before it"
    assert (warned in caplog.text) == (harm is not never_seal)


def damaged(folder: Path, team: Team) -> list[int]:
    """From where two go on when the one or the other part is damaged."""
    found = []
    for n in (0, 1):
        copy = Path(f"{folder}-damaged-{n}")
        if team.leads:
            shutil.copytree(folder, copy)
            os.truncate(part_of(copy / "state-000004", n), 10)
        team.gathered("damaged")
        found.append(parts.restore(str(copy), fresh(lesson(), team), team).epoch)
    return found


def test_all_workers_go_on_from_the_same_state_whoever_sees_the_damage(two: list[Told]) -> None:
    assert [told["damaged"] for told in two] == [[3, 3], [3, 3]]


def test_without_a_whole_state_training_begins_as_it_would(folder: Path, tmp_path: Path) -> None:
    of = lesson()
    state = parts.restore(str(tmp_path / "nothing"), fresh(of, Team()), Team())
    assert (state.epoch, len(state.optimizer.state)) == (0, 0)


def test_a_state_of_another_network_is_named(two: list[Told], folder: Path) -> None:
    other = fresh(lesson(), Team(), lambda: toy.Network(0.0))
    with pytest.raises(StoreError, match="state-000004 is of another network; remove it"):
        parts.restore(str(folder / "states-4"), other, Team())


def test_a_part_that_cannot_be_written_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = lesson()
    state = fresh(of, Team())
    parts.save(str(tmp_path), state, Team())

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state.epoch = 1
    with pytest.raises(StoreError, match="no space"):
        parts.save(str(tmp_path), state, Team())
    assert [Path(uri).name for uri in parts.saved(str(tmp_path))] == ["state-000000"]


def test_parts_that_the_first_worker_cannot_see_are_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each node has a disk of its own at that path."""
    monkeypatch.setattr(store, "write_bytes", lambda *_: None)
    with pytest.raises(StoreError, match="the store must be one place"):
        parts.save(str(tmp_path), fresh(lesson(), Team()), Team())


# --- what is refused


class Reaching(Transformer):
    """Uses a block's weight without the block."""

    def forward(self, batch: toy.Batch) -> Tensor:
        layer: Any = self.layers[0]
        reached: Tensor = (batch.features @ layer.mixed.weight[:4, :1]).squeeze(-1)
        return super().forward(batch) + reached


@dataclass
class Record:
    values: Tensor


class Recorder(Block):
    def forward(self, x: Tensor) -> Any:
        return Record(super().forward(x))


class Recording(Transformer):
    """Its blocks return what FSDP cannot look into."""

    def __init__(self) -> None:
        super().__init__(Recorder)

    def forward(self, batch: toy.Batch) -> Tensor:
        x = self.inner(batch.features)
        for layer in self.layers:
            x = layer(x).values
        logits: Tensor = self.head(x).squeeze(-1)
        return logits


def refused(team: Team, network: Callable[[], nn.Module]) -> str:
    of = lesson()
    with pytest.raises(TrainingError) as error:
        learnt(fresh(of, team, network), of, team)
    return str(error.value)


def test_a_network_that_cannot_be_divided_so_is_told_the_way_out(two: list[Told]) -> None:
    for told in two:
        reaching, recording = told["refused"]
        assert reaching.startswith("a weight was used outside the block that holds it; let")
        assert recording.startswith("Recorder returns Record, through which FSDP finds no way back")
        assert "shard_units() -> list[nn.Module]" in reaching
        assert "shard_units() -> list[nn.Module]" in recording


def test_a_weight_of_two_blocks_is_refused_and_of_one_is_not() -> None:
    network = Transformer()
    first: Any = network.layers[0]
    second: Any = network.layers[1]
    second.mixed.weight = first.mixed.weight
    said = r"layers\.0\.mixed\.weight and layers\.1\.mixed\.weight are one weight of two blocks"
    with pytest.raises(TrainingError, match=said):
        divide(Objective(network), Team(0, 2), Budget(sharded=True))


def test_a_single_number_is_refused_by_name() -> None:
    network = Transformer()
    network.temperature = nn.Parameter(torch.ones(()))
    with pytest.raises(TrainingError, match=r"temperature is a single number; .* \(1,\)"):
        divide(Objective(network), Team(0, 2), Budget(sharded=True))


def test_sharded_and_compiled_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match=r"budget\.sharded and budget\.compiled"):
        Budget(sharded=True, compiled=True)


def test_a_network_may_name_its_blocks() -> None:
    class Named(Transformer):
        def shard_units(self) -> list[nn.Module]:
            return [self.inner]

    network = Named()
    assert units(network) == [network.inner]


def test_blocks_are_what_lists_repeat_and_the_inner_come_first() -> None:
    inner = nn.ModuleList([Block(), Block()])
    outer = nn.Module()
    outer.inner = inner
    small, large = nn.Linear(4, 4), nn.Linear(256, 256)
    network = nn.Module()
    network.layers = nn.ModuleList([outer, nn.ModuleList([small, large])])
    found = units(network)
    assert set(found) == {inner[0], inner[1], outer, large}
    assert found.index(outer) > max(found.index(inner[0]), found.index(inner[1]))


def test_alone_nothing_is_divided() -> None:
    states = [fresh(lesson(sharded=s), Team()) for s in (True, False)]
    losses = [
        learnt(s, lesson(sharded=d), Team()) for s, d in zip(states, (True, False), strict=True)
    ]
    assert losses[0] == losses[1]
    assert type(states[0].module) is Transformer


def be_a_worker(folder: Path, rank: int, ports: list[str]) -> None:
    torch.set_num_threads(1)
    for name, task, world, port in zip(
        ("two", "three"), (learn, go_on), (2, 3), ports, strict=True
    ):
        if rank < world:
            torch.distributed.init_process_group(
                "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
            )
            told = task(folder, Team(rank, world))
            (folder / f"{name}-{rank}.json").write_text(json.dumps(told))
            leave()
    finish()


if __name__ == "__main__":
    be_a_worker(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
