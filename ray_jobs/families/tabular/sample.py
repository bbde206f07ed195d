"""The demo's data: a table that comes with scikit-learn, so that nothing need be fetched."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def sample(folder: Path, seed: int) -> str:
    """Write the breast cancer table of Wisconsin (Street et al. 1993) as CSV below a folder.

    569 cells' measurements, 30 numbers each, and whether the tumour was benign;
    the seed decides the order of the rows alone.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    columns = {
        name.replace(" ", "_"): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)
    }
    label = [str(bunch.target_names[t]) for t in bunch.target]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "breast_cancer.csv"
    table = pl.DataFrame({**columns, "label": label})
    table.sample(fraction=1, shuffle=True, seed=seed).write_csv(path)
    return str(path)
