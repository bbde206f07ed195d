"""What a replica must know of the installation it works for, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.settings import Settings


@dataclass(frozen=True)
class Site:
    """Places; plain values, since it travels with each release to its replicas."""

    key_file: str  # of a node: the installation's secret
    store: str  # URI: keys of clients, predictions, feedback

    @classmethod
    def of(cls, settings: Settings) -> Site:
        return cls(str(settings.key_file), settings.store_uri)
