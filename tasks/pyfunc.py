"""The model as MLflow loads it: `mlflow.pyfunc.load_model("models:/<service>@champion")`.

MLflow keeps this file as code and runs it on loading, so no object is ever
pickled; everything particular to a family comes through the family's record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from ray_jobs import artifact
from ray_jobs.predictor import predict


class Lyceum(PythonModel):
    """A frame of rows in, a column of predictions for each outcome out."""

    def load_context(self, context: PythonModelContext) -> None:
        self.model = artifact.read(Path(context.artifacts["artifact"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """The predictions of each row, in the order and with the index of the rows."""
        api, vocabulary = self.model.family.api, self.model.vocabulary
        examples, rows = api.frame(model_input, vocabulary)
        names = list(api.outputs(vocabulary))
        outcomes = [part.reshape(-1, len(names)) for part in predict(self.model, examples)]
        values = np.empty((len(model_input), len(names)), np.float64)
        values[rows] = np.concatenate([np.empty((0, len(names))), *outcomes])
        return pd.DataFrame(values, columns=names, index=model_input.index)


# The one line MLflow's models-from-code needs: it names the model in this file.
mlflow.models.set_model(Lyceum())
