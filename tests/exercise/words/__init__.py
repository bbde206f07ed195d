"""Whether a review is praise or blame, by counting its words (naive Bayes; Maron 1961)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ray_jobs import store
from ray_jobs.data import readers
from ray_jobs.data.clean import Cleaned
from ray_jobs.families import Api, Family, Protocol, Words
from ray_jobs.frames import must_have, texts
from ray_jobs.recipe import Recipe
from ray_jobs.target import Target
from ray_jobs.verb import Column, Verb

REVIEWS = Target("binary", ("blame", "praise"))
COLUMNS = ["author", "text", "verdict", "time", "position", "bucket", "split", "scored"]
RECIPES = ("words-smoke", "words", "words-demo")


def clean(rows: pl.DataFrame, _timed: bool, _columns: Any) -> Cleaned:
    known = (pl.col("verdict").is_in(REVIEWS.outcomes) & (pl.col("text") != "")).fill_null(False)
    added = rows.with_columns(scored=pl.lit(True), time=pl.lit(None, pl.Float64))
    bad = rows.filter(~known).select("position", reason=pl.lit("no_verdict"))
    return Cleaned(added.filter(known).select(COLUMNS), bad, merged=0, repeats=0)


@dataclass(frozen=True)
class Vocabulary:
    words: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def targets(table: pl.DataFrame, _vocabulary: Any) -> Any:
    return (table["verdict"] == "praise").to_numpy().astype(np.float64)


def examples(table: pl.DataFrame, _vocabulary: Any) -> list[Any]:
    return list(zip(table["text"], targets(table, None).tolist(), table["scored"], strict=True))


def collate(reviews: Any, vocabulary: Vocabulary) -> tuple[Tensor, ...]:
    """(B, V) counts of words, (B,) praise, (B,) scored."""
    told, praise, scored = zip(*reviews, strict=True)
    counted = [Counter(text.split()) for text in told]
    counts = torch.tensor([[float(c[word]) for word in vocabulary.words] for c in counted])
    return counts, torch.tensor(praise), torch.tensor(scored)


def loss(logits: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, batch[1], reduction="none")
    return (entropy * batch[2]).sum()


def outcomes(logits: Tensor, batch: tuple[Tensor, ...]) -> list[Any]:
    told = zip(torch.sigmoid(logits).numpy(), batch[2].tolist(), strict=True)
    return [np.array([praise][:scored]) for praise, scored in told]


class Sum(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)  # (V,) log odds of each word

    def forward(self, batch: tuple[Tensor, ...]) -> Tensor:
        return batch[0] @ self.get_buffer("weight")


@dataclass(frozen=True)
class NaiveBayes:
    name: ClassVar[str] = "naive-bayes"
    prior: float = 1.0  # how often each word is taken to have stood in each kind of review

    def build(self, vocabulary: Vocabulary) -> nn.Module:
        return Sum(torch.zeros(len(vocabulary.words)))

    def fit(self, train: pl.DataFrame, _validation: Any, vocabulary: Vocabulary) -> nn.Module:
        counts, praise, _ = collate(examples(train, None), vocabulary)
        odds = [counts[praise == kind].sum(0) + self.prior for kind in (1.0, 0.0)]
        return Sum((odds[0] / odds[0].sum()).log() - (odds[1] / odds[1].sum()).log()).eval()


def sample(folder: Path, seed: int) -> str:
    """Reviews of thirty words; praise has more of the first twenty words, blame of the next."""
    drawn, lines = random.Random(seed), ["author,text,verdict"]
    for author in range(600):
        first = drawn.choice((0, 20))
        spans = drawn.choices([(first, first + 20), (0, 60)], [1, 19], k=30)
        text = " ".join(f"w{drawn.randrange(*span)}" for span in spans)
        lines.append(f"author-{author},{text},{'blame' if first else 'praise'}")
    store.write_bytes(str(folder / "reviews.csv"), "\n".join(lines).encode())
    return str(folder / "reviews.csv")


class Question(BaseModel):
    """Is this review praise?"""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": "w1 w2"}]})
    text: str


class Answer(BaseModel):
    praise: float


def frame(rows: Any, _vocabulary: Any) -> Any:
    must_have(rows, [TEXT])
    return [(text or "", 0.0, True) for text in texts(rows, TEXT.name)], np.arange(len(rows))


TEXT = Column("text", "text", True, "the review")
VERB = Verb(
    Question, Answer, cost=lambda asked: len(asked.text) + 1,
    examples=lambda asked, _: [(asked.text, 0.0, True)],
    answer=lambda _asked, told, _: {"praise": round(float(told[0][0]), 6)},
)  # fmt: skip
API = Api(
    verbs=lambda _: {"predict": VERB}, columns=lambda _: [TEXT], outputs=lambda _: ["praise"],
    frame=frame, example=lambda _: {"text": ["w1 w2", "never met"]},
    golden=lambda table, _: [{"text": text} for text in table["text"].head(4)],
)  # fmt: skip


PROTOCOL = Protocol("no review of an author stands in two splits", rows="reviews")
FAMILY = Family(
    name="words", title="Reviews", protocol=lambda _: PROTOCOL, api=API,
    words=Words("It is meant as an exercise.", ("It counts, and does not read.",)),
    read=lambda unit, _: readers.batches(unit[0]), clean=clean, sample=sample,
    group="author", label="verdict", target=lambda _: REVIEWS, targets=targets, ordered=False,
    specs={NaiveBayes.name: NaiveBayes}, baseline=NaiveBayes, weight=lambda batch: batch[2].sum(),
    vocabulary=lambda p: Vocabulary(tuple({w: 0 for t in p for w in " ".join(t["text"]).split()})),
    recipes={n: partial(Recipe, n, "words", n, NaiveBayes(), workers=1) for n in RECIPES},
    vocabulary_from_json=lambda told: Vocabulary(tuple(told["words"])), examples=examples,
    cost=lambda review: len(review[0]) + 1, collate=collate, loss=loss, outcomes=outcomes,
    slices=lambda table, _: table.select(long=pl.col("text").str.len_chars() > 90),
)  # fmt: skip
