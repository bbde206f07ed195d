"""Our service beside LitServe: the same network, machine and requests, in turns.

32 connections that stay open ask each for requests of 50 answers, five times in turns;
medians are told. `whole` is a service as it is published, with keys, limits, validation,
metrics and the log of predictions; `bare` is without all but validation. Both have a
replica for each core, `single` is `whole` with one. `python -m tests.bench.serving`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import torch
from ray import serve
from ray.serve.schema import LoggingConfig

from ray_jobs import artifact
from ray_jobs.families.knowledge.networks.lstm import Lstm
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.privacy import load_key
from ray_jobs.recipe import Resources
from ray_jobs.serving import deploy, keys
from ray_jobs.serving.release import Release, golden_outcomes, verify
from ray_jobs.serving.replica import settle
from ray_jobs.serving.site import Site
from ray_jobs.serving.surface import Surface
from tests.bench.litserver import answers
from tests.serving_parts import serving

ROUNDS, SECONDS, CONNECTIONS = 5, 4.0, 32
COPIES = os.cpu_count() or 1  # replicas: one for each core, as LitServe has processes
ITEMS = tuple(f"item {i}" for i in range(1000))
SKILLS = tuple(f"skill {i}" for i in range(50))
SPEC = Lstm(width=32, neighbours=0)


class Bare:
    """A replica without anything round its model."""

    def __init__(self, release: dict[str, Any], prefix: str, key_file: str) -> None:
        torch.set_num_threads(1)
        known = Release(**release)
        model = artifact.fetched(known.artifact)
        verify(model, known)
        self.surface = Surface(model, known, load_key(Path(key_file)), prefix)
        settle()

    def __serve_build_asgi_app__(self) -> Surface:
        return self.surface


def main() -> None:
    """Print a table, and the ratios."""
    with tempfile.TemporaryDirectory() as folder, _both(Path(folder)) as targets:
        _interleaved(targets, Path(folder))


def _interleaved(targets: dict[str, tuple[int, str, str]], folder: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, target in targets.items():
            found[name].append(_load(target, folder, _request(0), CONNECTIONS))
    print("service\trequests/s\tp50 ms\tp99 ms\tfailed")
    for name, runs in found.items():
        print(f"{name}\t{_median(runs, 'rate'):.0f}\t{_median(runs, 'p50'):.1f}", end="\t")
        print(f"{_median(runs, 'p99'):.1f}\t{sum(run['failed'] for run in runs)}")
    for name in ("whole", "single", "bare"):
        rate, p99 = (
            _median(found[name], x) / _median(found["LitServe"], x) for x in ("rate", "p99")
        )
        print(f"{name} / LitServe: requests/s {rate:.2f}, p99 {p99:.2f}")
    whole = targets["whole"]
    lone = _load(whole, folder, _request(0), 1)
    print(f"one request at a time: p50 {lone['p50']:.1f} ms, p99 {lone['p99']:.1f} ms")
    for answers_, connections in ((50, 8), (10, 8)):
        many = {"instances": [_request(i, answers_) for i in range(100)]}
        batches = [_load(whole, folder, many, connections) for _ in range(ROUNDS)]
        print(
            f"batches of 100 instances of {answers_} answers: "
            f"{100 * _median(batches, 'rate'):.0f} predictions/s, "
            f"p50 {_median(batches, 'p50'):.0f} ms"
        )


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


def _request(number: int, history: int = 50) -> dict[str, Any]:
    return {
        "history": [
            {
                "item": ITEMS[(number + 7 * i) % len(ITEMS)],
                "skills": [SKILLS[(number + i) % len(SKILLS)]],
                "correct": (number + i) % 3 % 2,
                "time": 1_790_000_000 + 60 * i,
            }
            for i in range(history)
        ],
        "candidates": [{"item": ITEMS[number % 1000], "skills": [SKILLS[number % 50]]}],
    }


def _load(
    target: tuple[int, str, str], folder: Path, asked: Any, connections: int
) -> dict[str, Any]:
    """What a client in a process of its own sees."""
    port, path, key = target
    body = orjson.dumps(asked)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    file = folder / "request"
    file.write_bytes(head.encode() + body)
    words = [str(port), str(file), str(connections), str(SECONDS)]
    run = [sys.executable, "-m", "tests.bench.load", *words]
    told = json.loads(subprocess.run(run, check=True, capture_output=True).stdout)
    taken = 1000 * np.array(told["taken_s"])
    good = told["statuses"].pop("200", 0)
    return {
        "rate": good / told["seconds"],
        "p50": float(np.percentile(taken, 50)),
        "p99": float(np.percentile(taken, 99)),
        "failed": sum(told["statuses"].values()),
    }


@contextmanager
def _both(folder: Path) -> Iterator[dict[str, tuple[int, str, str]]]:
    """Port, path and key of each service, all of which answer."""
    model = _model(folder / "artifact")
    with serving(folder / "home") as (settings, cluster), answers(folder / "artifact") as lit:
        release = Release(
            service="whole",
            family="knowledge",
            lineage="0" * 32,
            artifact=str(folder / "artifact"),
            digest=model.digest,
            golden=golden_outcomes(model, [_request(0), _request(1, 3)]),
            card={},
            version="1",
        )
        _, key = keys.create(settings.store_uri, "bench", ["*"], per_second=1e6)
        port = int(cluster.services.rpartition(":")[2])
        for name, copies in (("whole", COPIES), ("single", 1)):
            claim = Resources(replica_cpus=0.1, replicas=copies)
            named = replace(release, service=name)
            deploy.deploy(named, cluster.services, site=Site.of(settings), resources=claim)
        _bare(replace(release, service="bare"), settings.key_file)
        with httpx.Client(trust_env=False, timeout=30) as client:
            headers = {"authorization": f"Bearer {key}"}
            same = [
                client.post(url, json=_request(3), headers=headers).raise_for_status().json()
                for url in (
                    f"{cluster.services}/whole/v1/predict",
                    f"{cluster.services}/bare/v1/predict",
                    f"http://127.0.0.1:{lit}/predict",
                )
            ]
        told = [one["predictions"][0]["probability"] for one in same]
        assert max(told) - min(told) < 1e-5, "they answer differently"
        yield {
            "LitServe": (lit, "/predict", ""),
            "whole": (port, "/whole/v1/predict", key),
            "single": (port, "/single/v1/predict", key),
            "bare": (port, "/bare/v1/predict", ""),
        }


def _bare(release: Release, key_file: Path) -> None:
    ingress = serve.deployment(name="replica")(serve.ingress()(Bare))
    application = ingress.options(
        num_replicas=COPIES,
        max_ongoing_requests=deploy.ONGOING,
        ray_actor_options={"num_cpus": 0.1},
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    ).bind(asdict(release), "bare", str(key_file))
    serve.run(application, name="bare", route_prefix="/bare")


def _model(folder: Path) -> artifact.Artifact:
    torch.manual_seed(0)
    vocabulary = Vocabulary(ITEMS, SKILLS)
    module = SPEC.build(vocabulary)
    artifact.write(
        folder, kind="knowledge", spec=SPEC, vocabulary=vocabulary, module=module, about={}
    )
    return artifact.read(folder)


if __name__ == "__main__":
    main()
