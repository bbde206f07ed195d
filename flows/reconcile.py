"""The reconciler: a champion that somebody crowned in MLflow goes live as by `lyceum promote`.

`python -m flows.reconcile` looks all the time, which costs next to nothing. What has to
be done is done by `python -m flows.reconcile SERVICE`, since MLflow and Ray fill memory.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from flows.platform import record
from flows.platform.locks import lock, taken
from ray_jobs import settings as installation
from ray_jobs.cluster import services_url
from ray_jobs.errors import LyceumError, PlatformError, RemoteError
from ray_jobs.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 2.0
PAUSE_S = 15.0  # before what somebody else's absence has stopped is tried again
ASKING_S = 5.0
SETTLING_S = 600.0
AGAIN = 75  # exit status: what is needed does not answer just now
MOST = 1000  # services of one answer
CHAMPION = "champion"


class Version(NamedTuple):
    """A version as MLflow and as a service tell it."""

    number: str
    lineage: str  # empty where MLflow was not told

    def is_same(self, live: Version) -> bool:
        return self.number == live.number and self.lineage in {"", live.lineage}


class Settled(NamedTuple):
    """What came of a change, in words, and whether it should be tried again."""

    said: str
    again: bool = False


@dataclass
class Reconciler:
    """What was seen of each service, and what was tried, so that nothing is done twice."""

    settings: Settings
    http: httpx.Client
    settle: Callable[[Settings, str], Settled]
    known: dict[str, Version] = field(default_factory=dict)  # champions that were seen to
    vain: dict[str, Version] = field(default_factory=dict)  # champions that cannot serve
    resting: dict[str, float] = field(default_factory=dict)  # until when, of the monotonic clock
    told: dict[str, str] = field(default_factory=dict)  # last words, by service or address
    lineages: dict[tuple[Any, ...], str] = field(default_factory=dict)
    looked: bool = False

    def look(self) -> bool:
        """Compare every champion with what answers, and settle what differs.

        Says whether MLflow answered; where it did not, all stays as it is.
        """
        uri = self.settings.mlflow_tracking_uri
        try:
            champions = self._champions(uri)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._away(uri, f"MLflow does not answer as it should at {uri} ({error}); asking on")
            return False
        self._answers_again(uri)
        for service, champion in champions.items():
            self._compare(service, champion)
        self.looked = True
        return True

    def _compare(self, service: str, champion: Version | None) -> None:
        live = self._live(service)
        if champion is None:
            if live is not None:
                words = f"has no champion any more; version {live.number} stays live"
                self._tell(service, f"{service} {words}")
        elif live is not None and champion.is_same(live):
            self.known[service] = champion
            self.vain.pop(service, None)
            self.told.pop(service, None)
        elif self._is_due(service, champion, live):
            self._settle(service, champion)

    def _is_due(self, service: str, champion: Version, live: Version | None) -> bool:
        """Whether it is for us to act, and now."""
        if live is None and not self.looked:
            # What nobody answered for when this process began is for `lyceum up` to put live.
            self.known[service] = champion
        # A replica that is only away is for Serve to bring back.
        seen_to = self.known if live is None else self.vain
        if seen_to.get(service) == champion:
            return False
        return time.monotonic() >= self.resting.get(service, 0.0)

    def _settle(self, service: str, champion: Version) -> None:
        try:
            if _busy(lock(self.settings, service, "live")):
                words = "is crowned; waiting for whoever changes what is live"
                self._tell(service, f"{service} version {champion.number} {words}")
                return
            settled = self.settle(self.settings, service)
        except OSError as error:
            settled = Settled(f"{service}: {error}", again=True)
        self._tell(service, settled.said)
        if settled.again:
            self.resting[service] = time.monotonic() + PAUSE_S
        else:
            self.known[service] = self.vain[service] = champion

    def _champions(self, uri: str) -> dict[str, Version | None]:
        """The champion of each service; a registry may hold models of others."""
        found: dict[str, Version | None] = {}
        token = ""
        while True:
            words = {"max_results": str(MOST), "page_token": token}
            page = self._asked(uri, "registered-models/search", words)
            for model in page.get("registered_models", []):
                if any(tag["key"] == "family" for tag in model.get("tags", [])):
                    found[model["name"]] = self._champion(uri, model)
            token = page.get("next_page_token", "")
            if not token:
                return found

    def _champion(self, uri: str, model: dict[str, Any]) -> Version | None:
        aliases = {a["alias"]: str(a["version"]) for a in model.get("aliases", [])}
        if CHAMPION not in aliases:
            return None
        # A number is given anew where a model was deleted and made again.
        key = (model["name"], model["creation_timestamp"], aliases[CHAMPION])
        if key not in self.lineages:
            words = {"name": model["name"], "version": aliases[CHAMPION]}
            of = self._asked(uri, "model-versions/get", words)["model_version"]
            tags = {tag["key"]: tag["value"] for tag in of.get("tags", [])}
            self.lineages[key] = tags.get("lineage", "")
        return Version(aliases[CHAMPION], self.lineages[key])

    def _asked(self, uri: str, path: str, words: dict[str, str]) -> dict[str, Any]:
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/{path}"
        answer = self.http.get(url, params={k: v for k, v in words.items() if v}, auth=_password())
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def _live(self, service: str) -> Version | None:
        """The version that answers as a service, or None."""
        base = services_url(self.settings)
        try:
            answer = self.http.get(f"{base}/{service}/healthz")
            told = answer.json() if answer.is_success else {}
        except (httpx.TransportError, ValueError) as error:
            self._away(base, f"no service answers at {base} ({error}); asking on")
            return None
        self._answers_again(base)
        ours = isinstance(told, dict) and {"version", "lineage"} <= told.keys()
        return Version(told["version"], told["lineage"]) if ours else None

    def _tell(self, about: str, words: str) -> None:
        """A line for the log, unless it is what was told last."""
        if self.told.get(about) != words:
            log.info("%s", words)
            self.told[about] = words

    def _away(self, address: str, words: str) -> None:
        """The same once, in whatever words it is away until it answers again."""
        if address not in self.told:
            self._tell(address, words)

    def _answers_again(self, address: str) -> None:
        if self.told.pop(address, ""):
            log.info("%s answers again", address)


def settle(settings: Settings, service: str) -> Settled:
    """Put the champion of a service live, or refuse it, in this process."""
    from flows import services

    try:
        return Settled(services.reconcile(settings, service))
    except (PlatformError, RemoteError) as error:
        return Settled(f"{service}: {error}", again=True)
    except LyceumError as error:
        return Settled(f"{service}: what was crowned by hand is refused: {error}")


def settle_aside(settings: Settings, service: str) -> Settled:
    """The same in a process of its own, whose memory is free afterwards."""
    del settings  # it reads the same
    command = [sys.executable, "-m", "flows.reconcile", service]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, timeout=SETTLING_S
        )
    except subprocess.TimeoutExpired:
        return Settled(f"{service}: nothing came of it within {SETTLING_S:.0f} s", again=True)
    said = done.stdout.splitlines()[-1:] or [f"{service}: it broke; the lines above say why"]
    return Settled(said[0], again=done.returncode == AGAIN)


def watch(settings: Settings) -> None:
    """Look every few seconds, for as long as the platform is up."""
    with httpx.Client(timeout=ASKING_S, trust_env=False) as http:
        reconciler = Reconciler(settings, http, settle_aside)
        while not reconciler.look():
            time.sleep(POLL_S)
        record.reconciler_file(settings.home).touch()
        while True:
            time.sleep(POLL_S)
            reconciler.look()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = installation.read()
    if not sys.argv[1:]:
        watch(settings)
    settled = settle(settings, sys.argv[1])
    print(settled.said)  # noqa: T201
    sys.exit(AGAIN if settled.again else 0)


def _busy(path: Path) -> bool:
    """Whether somebody holds a lock just now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        return not taken(file.fileno())


def _password() -> tuple[str, str] | None:
    """What MLflow's own clients give it, where it asks for a password."""
    name = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    return (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None


if __name__ == "__main__":
    main()
