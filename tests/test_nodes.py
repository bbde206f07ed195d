"""Training on several nodes with private disks: what one learns, whatever is lost on the way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from ray_jobs.recipe import Budget
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob
from tests.cluster_parts import Nodes, several
from tests.nodes_parts import asked, epochs, splits_at, trained, weights
from tests.s3_parts import Server, known

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 12
DISTURBED: dict[str, Any] = {
    "spec": {"name": "lstm", "width": 16, "neighbours": 8, "dropout": 0.2},
    "budget": Budget(epochs=EPOCHS, batch_cost=512),
    "workers": 3,
}


@pytest.fixture(scope="module")
def cluster(s3_server: Server) -> Iterator[Nodes]:
    with known(**s3_server.environment), several(3, **s3_server.environment) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def splits(s3_server: Server, cluster: Nodes, tmp_path_factory: pytest.TempPathFactory) -> str:
    return splits_at(s3_server.bucket(), tmp_path_factory.mktemp("splits"), learners=60)


@pytest.fixture(scope="module")
def undisturbed(cluster: Nodes, splits: str) -> TrainJob:
    of = asked(splits, "undisturbed", **DISTURBED)
    trained(of, cluster)
    return of


def test_three_workers_on_three_nodes_learn_what_one_learns(cluster: Nodes, splits: str) -> None:
    alone, together = (asked(splits, f"by-{n}", workers=n) for n in (1, 3))
    told = {of.workers: trained(of, cluster) for of in (alone, together)}
    (started,) = (e for e in told[3] if e.kind == "started")
    assert started.detail["workers"] == 3
    assert len(set(started.detail["nodes"])) == 3
    one, three = weights(alone), weights(together)
    assert one.keys() == three.keys()
    assert max(float((one[k] - three[k]).abs().max()) for k in one) < 1e-5
    assert [e.step for e in epochs(events.read(together.events))] == list(range(1, 7))
    busy = {name.split("/")[1] for e in epochs(told[3]) for name in e.metrics if "/cpu" in name}
    assert busy == {"node-0", "node-1", "node-2"}
    for node in cluster.nodes:
        assert not list((node.home / "cache" / "shards").glob("*/")), "examples outlive their run"


def lose_a_worker(cluster: Nodes, _: Server) -> None:
    """One of three training processes is killed."""
    (worker, *_rest) = cluster.nodes[1].named("RayTrainWorker")
    worker.kill()


def lose_a_node(cluster: Nodes, _: Server) -> None:
    """A machine loses its power, and another one joins."""
    cluster.nodes.pop().kill()
    cluster.add()


def lose_the_driver(cluster: Nodes, _: Server) -> None:
    """The job itself is killed, and with it whoever it had started."""
    for process in cluster.nodes[0].named("ray_jobs.train"):
        process.kill()


def lose_sight_of_a_node(cluster: Nodes, _: Server) -> None:
    """Half a minute of it; where Ray gave it up, who looks after the machine starts it anew."""
    node = cluster.nodes[-1]
    node.pause()
    time.sleep(30)
    node.resume()
    with suppress(subprocess.TimeoutExpired):
        node.process.wait(15)
        cluster.nodes.remove(node)
        cluster.add()


def lose_the_storage(_: Nodes, s3: Server) -> None:
    """It dies, and is there again after twenty seconds."""
    s3.kill()
    time.sleep(20)
    s3.start()


LOSSES: dict[Callable[[Nodes, Server], None], set[int]] = {  # and how many attempts that takes
    lose_a_worker: {2},
    lose_a_node: {2},
    lose_the_driver: {2},
    lose_sight_of_a_node: {1, 2},
    lose_the_storage: {1},
}


MOMENTS = [(lose, epoch) for lose in LOSSES for epoch in (2, 6, 10)]


@pytest.mark.parametrize(("lose", "moment"), [*MOMENTS, (lose_the_storage, EPOCHS)])
def test_training_that_loses_a_part_ends_by_itself_where_an_undisturbed_one_does(
    cluster: Nodes,
    splits: str,
    undisturbed: TrainJob,
    lose: Callable[[Nodes, Server], None],
    moment: int,
    s3_server: Server,
) -> None:
    of = asked(splits, f"{lose.__name__.replace('_', '-')}-{moment}", **DISTURBED)
    with ThreadPoolExecutor(1) as pool:
        lost: list[Future[None]] = []

        def happens(event: Event) -> None:
            if event.kind == "epoch" and event.step == moment:
                lost.append(pool.submit(lose, cluster, s3_server))

        told = trained(of, cluster, happens)
        lost[0].result()
    cluster.wait_for(3)
    assert [e.step for e in epochs(told)] == list(range(1, EPOCHS + 1))
    assert len([e for e in told if e.kind == "started"]) in LOSSES[lose]
    one, other = weights(undisturbed), weights(of)
    assert all(one[name].equal(other[name]) for name in one)
