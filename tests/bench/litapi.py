"""The same network behind LitServe, as one would write it who wants speed and no more.

`python -m tests.bench.litapi ARTIFACT PORT BATCH WAIT_S` serves until it is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve
import torch

from ray_jobs import artifact
from ray_jobs.predictor import predict


class Api(litserve.LitAPI):  # type: ignore[misc]
    """A request as our service takes it, an answer as our service gives it."""

    def __init__(self, folder: str, **how: Any) -> None:
        super().__init__(**how)
        self.folder = folder

    def setup(self, device: str) -> None:  # noqa: ARG002
        torch.set_num_threads(1)
        self.model = artifact.read(Path(self.folder))
        self.verb = self.model.family.api.verbs(self.model.vocabulary)["predict"]

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # it reads what stands here
        asked = self.verb.request.model_validate(request)
        return asked, self.verb.examples(asked, self.model.vocabulary)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: list[Any]) -> list[Any]:
        outcomes = iter(predict(self.model, [e for _, part in batch for e in part]))
        return [(asked, [next(outcomes) for _ in part]) for asked, part in batch]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        asked, outcomes = output
        told: dict[str, Any] = self.verb.answer(asked, outcomes, self.model.vocabulary)
        return told


def main() -> None:
    """Serve an artifact until killed."""
    folder, port, batch, wait_s = sys.argv[1:]
    api = Api(folder, max_batch_size=int(batch), batch_timeout=float(wait_s))
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(port=int(port), host="127.0.0.1", log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
