"""What tests of the knowledge family share: networks to which everything they hear matters."""

from __future__ import annotations

from functools import cache
from typing import Any

import polars as pl
import torch
from torch import nn

from ray_jobs.artifact import Artifact
from ray_jobs.families import family
from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.table import CLEAN
from ray_jobs.families.knowledge.vocabulary import PADDING, Vocabulary
from ray_jobs.predictor import predict

KNOWLEDGE = family("knowledge")
CLEAN_EXTRA = ("response_s", "about")
ITEMS, SKILLS = ("i1", "i2", "i3", "i4", "i5"), ("add", "sub", "mul")
VOCABULARY = Vocabulary(ITEMS, SKILLS)
SMALL: dict[str, dict[str, Any]] = {
    "rasch": {},
    "logistic": {},
    "lstm": {"width": 16, "neighbours": 4},
    "attention": {"width": 16, "neighbours": 4, "block": 4, "heads": 2},
    "blend": {"width": 16, "neighbours": 4, "block": 4, "heads": 2},
}


def saying_no_more(table: pl.DataFrame) -> pl.DataFrame:
    """A clean table of a log that tells neither how long answers took nor of whom they are."""
    return table.with_columns(pl.lit(None, CLEAN[name]).alias(name) for name in CLEAN_EXTRA)


@cache
def arbitrary(name: str = "lstm") -> Artifact:
    """A model that learnt nothing: what it says is arbitrary, but depends on all that it hears."""
    spec = SPECS[name](**SMALL[name])
    torch.manual_seed(0)
    module = spec.build(VOCABULARY)
    for part in module.modules():
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.isfinite().all() and tensor.ndim:
                nn.init.normal_(tensor, std=0.3)
        if isinstance(part, nn.Embedding):
            nn.init.zeros_(part.weight[PADDING])
    return Artifact(KNOWLEDGE, spec, VOCABULARY, module.eval(), {}, digest="")


def asked(model: Artifact, verb: str = "predict", **body: Any) -> list[float]:
    """What a client is told: the probabilities or levels that answer one request."""
    request = VERBS[verb].request.model_validate(body)
    histories = VERBS[verb].examples(request, model.vocabulary)
    assert VERBS[verb].cost(request) == sum(map(KNOWLEDGE.cost, histories)), "told beforehand"
    outcomes = predict(model, histories)
    return [float(chance) for outcome in outcomes for chance in outcome]
