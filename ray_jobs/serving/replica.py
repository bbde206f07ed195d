"""A replica: loads a release, proves that it answers its golden requests, then serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ray import serve

from ray_jobs import artifact
from ray_jobs.privacy import load_key
from ray_jobs.serving.release import Release, verify
from ray_jobs.serving.surface import Surface


class Replica:
    """One copy of one version. It cannot be told to serve another: publish replaces it."""

    def __init__(self, release: dict[str, Any], prefix: str, key_file: str, threads: int = 1):
        # More threads than cores of its own slow a small model and starve its neighbours.
        torch.set_num_threads(threads)
        self.release = Release(**release)
        key = load_key(Path(key_file), make=False)
        model = artifact.fetched(self.release.artifact)
        verify(model, self.release)  # raising here keeps traffic on the old version
        self.surface = Surface(model, self.release, key, prefix)

    def __serve_build_asgi_app__(self) -> Surface:
        return self.surface


Deployment = serve.deployment(name="replica")(serve.ingress()(Replica))
