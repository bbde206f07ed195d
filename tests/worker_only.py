"""What a node without Prefect and MLflow does: trains, serves, answers. Run by test_worker.py."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import httpx

from ray_jobs import artifact, settings, store
from ray_jobs.cluster import joined
from ray_jobs.data import clean, ingestion, sources, split, tables
from ray_jobs.families import family, recipe
from ray_jobs.families.knowledge.simulator import simulate
from ray_jobs.families.knowledge.world import World
from ray_jobs.predictor import predict
from ray_jobs.privacy import load_key
from ray_jobs.recipe import Resources, as_dict
from ray_jobs.serving import deploy
from ray_jobs.serving.keys import operator_token
from ray_jobs.serving.release import Release, golden_outcomes
from ray_jobs.serving.site import Site
from ray_jobs.training import submit
from ray_jobs.training.events import Event
from ray_jobs.training.job import TrainJob


def main(folder: Path) -> None:
    for name in ("prefect", "mlflow", "typer"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed"
    job = training_job(folder)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="lyceum-") as short:
        here = settings.read()
        with joined(here, folder=short, port=_free_port()) as cluster:
            identifier = submit.submit(job, cluster.dashboard)
            submit.wait(job, identifier, cluster.dashboard, _silent)
            model = artifact.read(store.local_path(job.artifact))
            table = tables.read_parquet(job.validation)
            golden = model.family.api.golden(table, model.vocabulary)
            release = Release(
                service="worker", family="knowledge", lineage="0" * 32, artifact=job.artifact,
                digest=model.digest, golden=golden_outcomes(model, golden),
                card={}, version="1",
            )  # fmt: skip
            url = deploy.deploy(
                release, cluster.services, site=Site.of(here), resources=Resources()
            )
            body, token = release.golden[1]["request"], operator_token(load_key(here.key_file))
            headers = {"authorization": f"Bearer {token}"}
            answer = httpx.post(f"{url}/v1/predict", json=body, headers=headers, timeout=30)
            assert predict(model, model.family.examples(table, model.vocabulary))
            print(json.dumps({"status": answer.status_code, **answer.json()}))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _silent(_: Event) -> None:
    """Progress for nobody."""


def training_job(folder: Path) -> TrainJob:
    """Simulate, ingest, clean and split; a small network on two workers."""
    kind, plan = family("knowledge"), recipe("knowledge")
    key, home = load_key(folder / "key"), str(folder / "store")
    simulate(World(learners=200), folder / "logs")
    files = sources.find(str(folder / "logs"))
    taken, _ = ingestion.ingest(
        kind.units(files),
        lambda unit: kind.read(unit, plan.columns),
        group=kind.group,
        key=key,
        store_uri=home,
    )
    table = clean.clean(
        taken,
        lambda rows, timed: kind.clean(rows, timed, plan.columns),
        uri=f"{home}/clean",
        key=key,
        max_bad_fraction=0.2,
    )
    how = {"group": kind.group, "salt": "worker"}
    parts = split.split(table, plan.split, **how, uri=f"{home}/split")
    spec = {**as_dict(plan.spec), "width": 16, "neighbours": 0}
    return TrainJob(
        name="worker", family="knowledge", spec=spec, train=parts.table("train"),
        validation=parts.table("validation"), output=f"{home}/train", seed=0, workers=2,
        budget=type(plan.budget)(**{**asdict(plan.budget), "epochs": 2}),
        resources=Resources(), about={},
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
