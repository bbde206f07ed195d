"""Trees as a module: a LightGBM model in its own text format, read by LightGBM itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ray_jobs.families.tabular.batch import Batch, Outputs
from ray_jobs.families.tabular.networks.fitting import Known
from ray_jobs.families.tabular.vocabulary import UNSEEN, Vocabulary

FILE = "trees.txt"
OBJECTIVES = {"binary": "binary", "classes": "multiclass", "number": "regression"}
QUIET = {"verbose": -1, "deterministic": True, "force_row_wise": True}
# A category of up to so many values is split one against the rest; LightGBM's own
# way, by sorted groups, asks for a hundred rows a group, which small tables lack.
FEW_VALUES = 64


class Trees(nn.Module):
    """Batch → Outputs with one head; trees are no tensors and lie in a file of their own."""

    divisor: Tensor  # () of the sum over trees: their number, where they are averaged

    def __init__(self) -> None:
        super().__init__()
        self.booster: lightgbm.Booster | None = None
        self.register_buffer("divisor", torch.tensor(1.0))

    def forward(self, batch: Batch) -> Outputs:
        assert self.booster is not None, "no trees were fitted or loaded"
        raw: Any = self.booster.predict(
            inputs(batch), raw_score=True, num_threads=torch.get_num_threads()
        )
        values = torch.from_numpy(np.asarray(raw, np.float32))
        return Outputs(values[:, None] / self.divisor)

    def grow(
        self, known: Known, vocabulary: Vocabulary, parameters: dict[str, Any], rounds: int
    ) -> None:
        """Fit trees to rows."""
        every = {**settings(vocabulary), **parameters}
        self.booster = lightgbm.train(every, dataset(known, vocabulary), rounds)
        self.divisor.fill_(rounds if every.get("boosting") == "rf" else 1.0)

    def files(self) -> dict[str, bytes]:
        assert self.booster is not None, "no trees were fitted or loaded"
        return {FILE: self.booster.model_to_string().encode()}

    def load_files(self, files: Mapping[str, bytes]) -> None:
        self.booster = lightgbm.Booster(model_str=files[FILE].decode())


def settings(vocabulary: Vocabulary) -> dict[str, Any]:
    """What LightGBM is told whatever the trees."""
    target = vocabulary.target
    several = {"num_class": len(target.outcomes)} if target.kind == "classes" else {}
    threads = {"num_threads": torch.get_num_threads()}
    seed = {"seed": torch.initial_seed() % 2**31}
    task = {"objective": OBJECTIVES[target.kind], "max_cat_to_onehot": FEW_VALUES}
    return {**QUIET, **threads, **seed, **task, **several}


def dataset(known: Known, vocabulary: Vocabulary) -> lightgbm.Dataset:
    """Rows as LightGBM wants them."""
    numbers = len(vocabulary.numbers)
    categories = list(range(numbers, numbers + len(vocabulary.categories)))
    return lightgbm.Dataset(
        inputs(known.batch),
        known.target,
        categorical_feature=categories,
        params={"verbose": -1},
        free_raw_data=False,
    )


def inputs(batch: Batch) -> NDArray[np.float64]:
    """(B, F + C) numbers, and categories by code; what is missing or unseen is NaN."""
    codes = batch.codes.numpy().astype(np.float64)
    codes[codes <= UNSEEN] = np.nan
    return np.concatenate([batch.numbers.numpy().astype(np.float64), codes], axis=1)
