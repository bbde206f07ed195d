"""A service under load while versions come, go and fail, and while parts of it are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import orjson
import psutil
import pytest

from flows.platform.processes import marked
from ray_jobs.client import Client
from ray_jobs.errors import ServiceError
from ray_jobs.privacy import load_key
from ray_jobs.serving import deploy, keys, outcomes, receipt
from ray_jobs.serving.release import Release
from tests.serving_parts import serving
from tests.test_serving_ray import SERVICE, Installation, release, request

pytestmark = [pytest.mark.ray, pytest.mark.slow]

AGAIN_S = 15.0  # within which a service recovers
WORST_S = 0.15
OUTCOMES = 10_000


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with serving(tmp_path_factory.mktemp("home")) as (settings, cluster):
        yield Installation(settings, cluster)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    return [release(tmp_path_factory.mktemp("artifact"), number) for number in range(1, 12)]


@dataclass
class Heard:
    """What two clients heard."""

    statuses: dict[str, int]
    versions: list[str]
    asked_s: list[float]
    taken_s: list[float]
    seconds: float

    def between(self, begin: float, end: float) -> np.ndarray[Any, Any]:
        """Seconds that the answers took which were asked for in that time."""
        pairs = zip(self.asked_s, self.taken_s, strict=True)
        return np.array([taken for asked, taken in pairs if begin <= asked < end])


@contextmanager
def loaded(at: Installation, folder: Path, connections: int = 2) -> Iterator[Callable[[], Heard]]:
    """Clients ask in a process of their own, until they are asked what they heard."""
    _, key = keys.create(at.settings.store_uri, "load", [SERVICE])
    body = orjson.dumps(request(10))
    head = (
        f"POST /{SERVICE}/v1/predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    (folder / "request").write_bytes(head.encode() + body)
    time.sleep(keys.KNOWN_S)
    port = at.cluster.services.rpartition(":")[2]
    words = [port, str(folder / "request"), str(connections), "600"]
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load", *words], stdout=subprocess.PIPE
    )

    def heard() -> Heard:
        client.terminate()
        told, _ = client.communicate(timeout=30)
        return Heard(**json.loads(told))

    try:
        yield heard
    finally:
        client.kill()
        client.wait(10)


def broken(found: Release, folder: Path, how: str) -> Release:
    """A candidate that must not serve."""
    if how == "corrupt":
        copy = release(folder, int(found.version))
        path = folder / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
        return copy
    if how == "digest":
        return replace(found, digest="0" * 64)
    golden = [{**case, "outcomes": [[0.123]]} for case in found.golden]
    return replace(found, golden=golden)


def test_ten_swaps_five_rollbacks_and_three_failures_harm_nobody(
    at: Installation, releases: list[Release], tmp_path: Path
) -> None:
    first, *others = releases
    at.publish(first)
    live = [first]
    with loaded(at, tmp_path) as heard:
        time.sleep(6)
        steady = (time.time() - 5, time.time())
        for number, new in enumerate(others):
            at.publish(new, previous=live[-1])
            live.append(new)
            if number % 2:
                at.publish(live[-2], previous=live[-1])
                live.append(live[-2])
            if number in {2, 5, 8}:
                how = ("corrupt", "digest", "golden")[number // 3]
                bad = broken(replace(new, version="66"), tmp_path / how, how)
                bad = replace(bad, version="66", lineage="f" * 32)
                with pytest.raises(ServiceError):
                    at.publish(bad, previous=live[-1])
                assert deploy.live_version(at.url) == live[-1].version
        told = heard()
    assert set(told.statuses) == {"200"}, told.statuses
    assert set(told.versions) == {one.version for one in releases}
    p99 = float(np.percentile(told.between(*steady), 99))
    worst = max(told.taken_s)
    print(f"{told.statuses['200']} answers; p99 {1000 * p99:.0f} ms, worst {1000 * worst:.0f} ms")
    assert worst < max(3 * p99, WORST_S)
    assert told.versions[-1] == live[-1].version


def processes(at: Installation, part: str) -> list[psutil.Process]:
    """Processes of this installation, and of no other, whose title has a part."""
    return [p for p in marked(at.settings.home, lambda _: True) if part in title(p)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


PARTS = {
    "replica": "ray::ServeReplica:" + SERVICE,
    "proxy": "haproxy.cfg",
    "controller": "ray::ServeController",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_comes_back_and_a_client_that_retries_sees_nothing(
    at: Installation, releases: list[Release], tmp_path: Path, part: str
) -> None:
    at.publish(releases[0])
    _, key = keys.create(at.settings.store_uri, "client", [SERVICE])
    with loaded(at, tmp_path) as heard, Client(at.url, key=key) as client:
        time.sleep(3)
        killed = time.time()
        (victim, *_) = processes(at, PARTS[part])
        os.kill(victim.pid, signal.SIGKILL)
        until = time.monotonic() + AGAIN_S
        count, asked = 0, cast("dict[str, Any]", request(5))
        while time.monotonic() < until:
            answer = client.predict(**asked)
            assert answer.version == releases[0].version
            count += 1
        told = heard()
    assert count > 20
    late = [
        status_time
        for status_time, version in zip(told.asked_s, told.versions, strict=True)
        if status_time > killed and not version
    ]
    print(f"{part}: {told.statuses}, back after {max(late, default=killed) - killed:.1f} s")
    assert set(told.versions) <= {"", releases[0].version}
    assert max(late, default=killed) - killed < AGAIN_S
    assert httpx.get(f"{at.url}/readyz").status_code == 200
    if part == "controller":
        assert not late, "who answers does not need it"


def test_no_acknowledged_outcome_is_lost_or_counted_twice_when_its_writer_is_killed(
    at: Installation, releases: list[Release]
) -> None:
    at.publish(releases[0])
    _, key = keys.create(at.settings.store_uri, "feedback", [SERVICE])
    time.sleep(keys.KNOWN_S)
    asked = cast("dict[str, Any]", request(5))
    secret = load_key(at.settings.key_file)

    def told(numbers: range) -> list[str]:
        """Ids of the predictions whose outcomes were acknowledged."""
        acknowledged = []
        with Client(at.url, key=key, timeout_s=60) as client:
            for number in numbers:
                answer = client.predict(learner=f"learner {number}", **asked)
                assert answer.prediction_id
                client.feedback(answer.prediction_id, [number % 2])
                acknowledged.append(receipt.verified(secret, answer.prediction_id).id)
        return acknowledged

    each = OUTCOMES // 16
    with ThreadPoolExecutor(16) as pool:
        work = [pool.submit(told, range(i * each, (i + 1) * each)) for i in range(16)]
        while sum(one.running() for one in work) and not written(at):
            time.sleep(0.1)
        time.sleep(3)
        os.kill(processes(at, PARTS["replica"])[0].pid, signal.SIGKILL)
        acknowledged = [id_ for one in work for id_ in one.result()]
    found = outcomes.gathered(at.settings.store_uri, SERVICE)
    print(f"{len(acknowledged)} acknowledged, {len(found.rows)} kept, {found.again} told again")
    assert len(acknowledged) == len(set(acknowledged)) == 16 * each
    assert set(acknowledged) <= set(found.rows["id"])
    assert found.rows["id"].n_unique() == len(found.rows)
    assert found.otherwise == 0


def written(at: Installation) -> bool:
    folder = Path(at.settings.store_uri) / "feedback" / SERVICE
    return any(folder.rglob("*.parquet"))


def test_a_replica_holds_no_more_after_a_hundred_thousand_requests(
    at: Installation, releases: list[Release], tmp_path: Path
) -> None:
    at.publish(releases[1])
    replica = processes(at, PARTS["replica"])[-1]
    with loaded(at, tmp_path, connections=32) as heard:
        time.sleep(15)
        before = replica.memory_full_info().uss
        time.sleep(65)
        after = replica.memory_full_info().uss
        told_ = heard()
    grown = (after - before) / 2**20
    print(f"{sum(told_.statuses.values())} requests, {grown:+.1f} MiB")
    assert set(told_.statuses) == {"200"}
    assert told_.statuses["200"] > 50_000
    assert grown < 50
