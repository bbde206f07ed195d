"""How accurate the models of knowledge tracing are.

`python -m tests.bench.accuracy [--protocol K1] [NAME ...]`: each of several public logs,
read, cleaned and split as a run does it; each recipe with seeds 0-2, every one in a process
of its own on two threads; one line for each pair. NAME takes only those whose log or recipe
is named. Protocol N unless told otherwise. Takes hours for all.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from flows.request import resolve
from ray_jobs.allocator import keep_freed
from ray_jobs.artifact import Artifact
from ray_jobs.data.tables import read_parquet
from ray_jobs.evaluation import Evaluation, compare, evaluate
from ray_jobs.families import family, recipe
from ray_jobs.families.knowledge.table import PROTOCOLS
from ray_jobs.predictor import predict
from ray_jobs.settings import Settings
from ray_jobs.training.loop import Lesson, State, run
from ray_jobs.training.team import Team
from tasks.prepare import clean, ingest, split
from tasks.run import Run

DATA = Path(__file__).parents[3] / "shared/data"
LOGS = {
    "ASSIST2009-events": "assist2009/events",
    "ASSIST2009-akt_pid-1": "assist2009/akt_pid/assist2009_pid_*1.csv.gz",
    "ASSIST2015-akt-1": "assist2015/akt/assist2015_*1.csv.gz",
    "ASSIST2015-edm2016": "assist2015/edm2016",
}
BASELINE = "knowledge-logistic"
RECIPES = (BASELINE, "knowledge", "knowledge-attention", "knowledge-best")
SEEDS = (0, 1, 2)
FIGURES = ("auc", "log_loss", "calibration_error")
KNOWLEDGE = family("knowledge")


@dataclass(frozen=True)
class Made:
    """One model on one log's test split."""

    seed: int
    seconds: float  # of training
    peak_gib: float
    evaluation: Evaluation


def main(words: list[str]) -> None:
    """A line for each log and recipe, the baseline first since the others stand against it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.accuracy")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=PROTOCOLS[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    asked = parser.parse_args(words)
    wanted, protocol = asked.names, asked.protocol
    logs = [name for name in LOGS if not set(wanted) & set(LOGS) or name in wanted]
    others = [name for name in RECIPES[1:] if not set(wanted) & set(RECIPES) or name in wanted]
    print("log", "protocol", "recipe", *FIGURES, "auc over logistic", "training s", "GiB", sep="\t")
    for log in logs:
        with tempfile.TemporaryDirectory() as folder:
            splits = prepared(log, protocol, Path(folder))
            about = f"{log}\t{protocol}"
            (baseline,) = told(about, BASELINE, [made(splits, BASELINE, 0)], None)
            for name in others:
                told(about, name, [made(splits, name, seed) for seed in SEEDS], baseline)


def prepared(log: str, protocol: str, folder: Path) -> dict[str, str]:
    """The tables of a log's splits, made by the stages of a run."""
    how = {"columns.protocol": protocol}
    asked = resolve("knowledge", log, str(DATA / LOGS[log]), how, None, None)
    here = Run(asked, Settings(home=folder / "home", key_file=folder / "key"))
    snapshot = ingest.fn(here)[0]
    tables = split.fn(here, clean.fn(here, snapshot)[0])[0]
    return {name: tables.table(name) for name in ("train", "validation", "test")}


def made(splits: dict[str, str], name: str, seed: int) -> Made:
    """Train in a process of its own, and judge what it says of the test split."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "chances.npy"
        command = [sys.executable, "-m", "tests.bench.accuracy", "--train"]
        words = json.dumps({"splits": splits, "recipe": name, "seed": seed, "out": str(out)})
        done = subprocess.run([*command, words], check=True, stdout=subprocess.PIPE, text=True)
        cost = json.loads(done.stdout.splitlines()[-1])
        chances = np.load(out)
    test = read_parquet(splits["test"]).filter("scored")
    rows = test.select(group="learner", target=pl.col("correct").cast(pl.Float64))
    target = KNOWLEDGE.target(None)
    return Made(seed, evaluation=evaluate(rows, chances, target, metrics=FIGURES), **cost)


def told(about: str, name: str, models: list[Made], baseline: Made | None) -> list[Made]:
    """Print the line of a log, with its protocol, and a recipe."""
    columns = [about, name, *(_figure(models, figure) for figure in FIGURES)]
    if baseline is not None:
        gains = [compare(one.evaluation, baseline.evaluation)["auc"] for one in models]
        mean = statistics.mean(gain.value for gain in gains)
        columns.append(f"{mean:+.4f} ({min(g.low for g in gains):+.4f} at least)")
    else:
        columns.append("")
    columns.append(f"{max(one.seconds for one in models):.0f}")
    columns.append(f"{max(one.peak_gib for one in models):.2f}")
    print(*columns, sep="\t", flush=True)
    return models


def _figure(models: list[Made], name: str) -> str:
    """The mean over seeds, with the widest interval of the bootstrap by learner."""
    found = [one.evaluation.metrics[name] for one in models]
    mean = statistics.mean(figure.value for figure in found)
    low, high = min(f.low for f in found), max(f.high for f in found)
    return f"{mean:.4f} ({low:.4f} to {high:.4f})"


def train(splits: dict[str, str], name: str, seed: int, out: str) -> None:
    """Train one model, keep what it says of the test split, and print what it cost."""
    torch.set_num_threads(2)
    keep_freed()
    asked = recipe(name)
    parts = {part: read_parquet(uri) for part, uri in splits.items()}
    words = KNOWLEDGE.vocabulary([parts["train"]])
    begin = time.perf_counter()
    module = _trained(asked, parts, words, seed)
    seconds = time.perf_counter() - begin
    model = Artifact(KNOWLEDGE, asked.spec, words, module, {}, digest="")
    chances = np.concatenate(predict(model, KNOWLEDGE.examples(parts["test"], words)))
    np.save(out, chances)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def _trained(asked: Any, parts: dict[str, pl.DataFrame], words: Any, seed: int) -> nn.Module:
    if hasattr(asked.spec, "fit"):
        fitted: nn.Module = asked.spec.fit(parts["train"], parts["validation"], words)
        return fitted
    torch.manual_seed(seed)
    network = asked.spec.prepare([parts["train"]], words)
    state = State.of(network, asked.budget, Team())
    known, held_out = (KNOWLEDGE.examples(parts[n], words) for n in ("train", "validation"))
    lesson = Lesson(KNOWLEDGE, words, known, held_out, asked.budget, seed=seed)
    run(state, lesson, Team(), lambda _, figures: print(figures, file=sys.stderr))
    state.module.load_state_dict(state.best)
    return state.module.eval()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(**{"name" if k == "recipe" else k: v for k, v in json.loads(sys.argv[2]).items()})
    else:
        main(sys.argv[1:])
