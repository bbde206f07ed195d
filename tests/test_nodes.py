"""Training on several nodes with private disks: what one node learns, over S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from ray_jobs import store
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.recipe import Budget
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from ray_jobs.training.submit import submit, wait
from tests.cluster_parts import Nodes, several
from tests.installation import SCHOOL, Installation
from tests.s3_parts import Server, free_ports, known
from tests.test_train_ray import answers, job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 12
DISTURBED: dict[str, Any] = {
    "spec": {"name": "lstm", "width": 16, "neighbours": 8, "dropout": 0.2},
    "budget": Budget(epochs=EPOCHS, batch_cost=512),
    "workers": 3,
}
EXACT = {"name": "lstm", "width": 16, "neighbours": 8, "dropout": 0.0, "blank": 0.0}


@pytest.fixture(scope="module")
def cluster(s3_server: Server) -> Iterator[Nodes]:
    with known(**s3_server.environment), several(3, **s3_server.environment) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def splits(s3_server: Server, cluster: Nodes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small world on S3: two parts of a train split, one of a validation split."""
    folder = tmp_path_factory.mktemp("splits")
    for part in range(2):
        (folder / "train").mkdir(exist_ok=True)
        answers(60, seed=part).write_parquet(folder / "train" / f"part-{part:05d}.parquet")
    (folder / "validation").mkdir()
    answers(20, seed=2).write_parquet(folder / "validation" / "part-00000.parquet")
    url = s3_server.bucket()
    store.put_folder(folder, url)
    return url


def asked(splits: str, name: str, **values: Any) -> TrainJob:
    given: dict[str, Any] = {
        "train": f"{splits}/train",
        "validation": f"{splits}/validation",
        "spec": EXACT,
        "budget": Budget(epochs=6, batch_cost=512),
    }
    of = job(Path("/nowhere"), Path(name), **{**given, **values})
    return replace(of, output=f"{splits}/{name}")


def trained(of: TrainJob, cluster: Nodes) -> list[Event]:
    told: list[Event] = []
    wait(of, submit(of, cluster.dashboard), cluster.dashboard, told.append)
    return told


@pytest.fixture(scope="module")
def undisturbed(cluster: Nodes, splits: str) -> TrainJob:
    of = asked(splits, "undisturbed", **DISTURBED)
    trained(of, cluster)
    return of


def weights(of: TrainJob) -> dict[str, Any]:
    return load(store.read_bytes(f"{of.artifact}/weights.safetensors"))


def test_three_workers_on_three_nodes_learn_what_one_learns(cluster: Nodes, splits: str) -> None:
    alone, together = (asked(splits, f"by-{n}", workers=n) for n in (1, 3))
    told = {of.workers: trained(of, cluster) for of in (alone, together)}
    (started,) = (e for e in told[3] if e.kind == "started")
    assert started.detail["workers"] == 3
    assert len(set(started.detail["nodes"])) == 3
    one, three = weights(alone), weights(together)
    assert one.keys() == three.keys()
    assert max(float((one[k] - three[k]).abs().max()) for k in one) < 1e-5
    assert [e.step for e in events.read(together.events) if e.kind == "epoch"] == list(range(1, 7))
    for node in cluster.nodes:
        assert not list((node.home / "cache" / "shards").glob("*/")), "examples outlive their run"


def test_a_run_on_three_nodes_is_as_good_as_runs_on_one(
    cluster: Nodes, s3_server: Server, tmp_path: Path
) -> None:
    """Within what another seed makes of it: dropout differs by worker."""
    simulate(SCHOOL, tmp_path / "logs")
    url = s3_server.bucket()
    store.put_folder(tmp_path / "logs", f"{url}/logs")
    given = {
        **s3_server.environment,
        "LYCEUM_STORE": f"{url}/lyceum",
        "LYCEUM_HTTP_PORT": str(free_ports(1)[0]),
    }
    here = Installation.of(tmp_path / "here", tmp_path, **given)
    here.home.parent.mkdir()
    there = replace(here, environment=here.environment | cluster.joining)
    sets = [
        "spec.width=16", "spec.neighbours=8", "budget.epochs=4", "budget.learning_rate=0.02",
        "gate.beat_baseline=false", "gate.margin=1", "gate.max_calibration_error=1",
    ]  # fmt: skip
    words = ["knowledge", "--data", f"{url}/logs", "--no-publish"]
    words += [word for setting in sets for word in ("--set", setting)]
    alone = [here.run(*words, "--workers", "1", "--seed", seed) for seed in "012"]
    together = there.run(*words, "--workers", "3")
    assert together["train"]["workers"] == 3
    assert together["cached"] == ["ingest", "clean", "split", "describe"]
    for name in ("auc", "log_loss"):
        values = [run["metrics"][name]["value"] for run in alone]
        spread = max(values) - min(values)
        assert min(values) - spread <= together["metrics"][name]["value"] <= max(values) + spread


def lose_a_worker(cluster: Nodes) -> None:
    """One of three training processes is killed."""
    (worker, *_) = cluster.nodes[1].named("RayTrainWorker")
    worker.kill()


def lose_a_node(cluster: Nodes) -> None:
    """A machine loses its power, and another one joins."""
    cluster.nodes.pop().kill()
    cluster.add()


def lose_the_driver(cluster: Nodes) -> None:
    """The job itself is killed, and with it whoever it had started."""
    for process in cluster.nodes[0].named("ray_jobs.train"):
        process.kill()


@pytest.mark.parametrize("moment", [2, 6, 10])
@pytest.mark.parametrize("lose", [lose_a_worker, lose_a_node, lose_the_driver])
def test_training_that_loses_a_part_ends_by_itself_where_an_undisturbed_one_does(
    cluster: Nodes,
    splits: str,
    undisturbed: TrainJob,
    lose: Callable[[Nodes], None],
    moment: int,
) -> None:
    of = asked(splits, f"{lose.__name__.replace('_', '-')}-{moment}", **DISTURBED)
    told: list[Event] = []

    def happens(event: Event) -> None:
        told.append(event)
        if event.kind == "epoch" and event.step == moment:
            lose(cluster)

    wait(of, submit(of, cluster.dashboard), cluster.dashboard, happens)
    assert [e.step for e in told if e.kind == "epoch"] == list(range(1, EPOCHS + 1))
    assert len([e for e in told if e.kind == "started"]) == 2
    one, other = weights(undisturbed), weights(of)
    assert all(one[name].equal(other[name]) for name in one)
