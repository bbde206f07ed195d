"""A replica: loads a release, proves that it answers its golden requests, then serves.

What is heavy is imported while it loads, and not with this file, so that all of it
happens aside.
"""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve

from ray_jobs.serving.aside import aside
from ray_jobs.serving.site import Site

if TYPE_CHECKING:
    from ray_jobs.privacy import Key
    from ray_jobs.serving.exporter import Exporter
    from ray_jobs.serving.journal import Journal
    from ray_jobs.serving.keys import Keyring
    from ray_jobs.serving.release import Release
    from ray_jobs.serving.surface import House, Surface

    Parts = tuple[Journal, Keyring, Exporter]  # each with a thread of its own

log = logging.getLogger(__name__)

COLLECTED_AFTER = 250_000  # objects more than went
SPARE = 1 << 26  # bytes that are kept for what comes


class Replica:
    """One copy of one version. It cannot be told to serve another: publish replaces it."""

    def __init__(
        self,
        release: dict[str, Any],
        prefix: str,
        site: Site,
        *,
        alone: bool = True,
        threads: int = 1,
    ):
        begin = time.monotonic()
        aside(lambda: self._load(release, prefix, site, alone=alone, threads=threads))
        log.info("loaded and verified in %.1f s", time.monotonic() - begin)
        settle()
        # Threads of a thread that stands aside would do so too.
        for part in self.parts:
            part.start()

    def _load(
        self, values: dict[str, Any], prefix: str, site: Site, *, alone: bool, threads: int
    ) -> None:
        import torch

        from ray_jobs import artifact
        from ray_jobs.privacy import load_key
        from ray_jobs.serving import logs
        from ray_jobs.serving.exporter import Exporter
        from ray_jobs.serving.release import Release, verify
        from ray_jobs.serving.surface import Surface

        # More threads than cores of its own slow a small model and starve its neighbours.
        torch.set_num_threads(threads)
        release = self.release = Release(**values)
        logs.structured(release)
        key = load_key(Path(site.key_file), make=False)
        model = artifact.fetched(release.artifact)
        verify(model, release)  # raising here keeps traffic on the old version
        house = _house(release, key, site, alone=alone)
        self.surface = Surface(model, release, key, prefix, house=house)
        assert house.door
        assert house.journal
        self.parts: Parts = (house.journal, house.door.ring, Exporter(self.surface))

    def __serve_build_asgi_app__(self) -> Surface:
        return self.surface

    def __del__(self) -> None:
        """Serve's way of saying that this replica has answered its last request."""
        if parts := getattr(self, "parts", ()):
            for part in parts:
                part.stop()
            log.info("has answered its last request")


def settle() -> None:
    """Once a model is loaded: keep memory for the next request, and seldom look for more.

    What is there stays, and what comes with requests goes by itself; the collector would look
    at all of it again and again, in batches of a hundred requests a fifth of the time.
    """
    from ray_jobs.allocator import keep_freed

    keep_freed(SPARE)
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, 20, 50)


def _house(release: Release, key: Key, site: Site, *, alone: bool) -> House:
    from ray_jobs.serving import limits
    from ray_jobs.serving.door import Door
    from ray_jobs.serving.feedback import Recorder
    from ray_jobs.serving.forgetting import Erased
    from ray_jobs.serving.journal import Journal
    from ray_jobs.serving.keys import Keyring
    from ray_jobs.serving.meters import Meters
    from ray_jobs.serving.surface import House

    service = release.service
    ring = Keyring(site.store)
    journal = Journal(site.store, service, release.lineage, erased=Erased(site.store, key))
    spent = limits.alone() if alone else limits.shared(service)
    return House(
        door=Door(service, key, ring, spent),
        journal=journal,
        recorder=Recorder(site.store, service, Erased(site.store, key)),
        meters=Meters(),
    )


Deployment = serve.deployment(name="replica")(serve.ingress()(Replica))
