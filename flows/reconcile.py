"""The reconciler: a champion that somebody crowned in MLflow goes live as by `lyceum promote`.

So does one that another version answers for, left by a command that was killed.
`python -m flows.reconcile` looks all the time, which costs next to nothing. What has to
be done is done by `python -m flows.reconcile SERVICE`, since MLflow and Ray fill memory.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
ASKING_S = 10.0
SETTLING_S = 600.0
AGAIN_S = 15.0  # until what somebody's absence has stopped is tried again
BROKEN_S = 600.0  # the same for what broke, which is our own fault, or does not load
ANSWERS_S = 6.0  # until services are asked again which version they are
ANSWERING_S = 2.0
ASTRAY_S = 30.0  # in which a command on another home, whose lock is not seen, crowns what answers
AGAIN = 75  # exit status: something that is needed does not answer just now
MOST = "1000"  # services of one answer
# As tasks.register has them, which is not imported here: it needs MLflow.
CHAMPION, SEEN_TO, LIVE = "champion", "crowned", "live"


class Service(NamedTuple):
    """A service as MLflow has it; versions are empty where there is none."""

    name: str
    champion: str  # the version that has the alias
    seen_to: str  # the champion that a command crowned, or that was followed or refused
    live: str  # the champion that went live last; one crowned since may wait


class Settled(NamedTuple):
    """What came of a change, in words, and in how long it should be tried again."""

    said: str
    again_s: float = 0.0  # 0: it should not


Settle = Callable[[Settings, str], Settled]


@dataclass
class Reconciler:
    """One who looks, again and again; MLflow keeps what was seen to, so that any other goes on."""

    settings: Settings
    http: httpx.Client
    settle: Settle
    resting: dict[tuple[str, str], float] = field(default_factory=dict)  # champion: until when
    told: dict[str, str] = field(default_factory=dict)  # last words, by service or address
    # (champion, version that answers for it), and when that is to be seen to; by service
    astray: dict[str, tuple[tuple[str, str], float]] = field(default_factory=dict)
    ask_at: float = 0.0

    def look(self) -> bool:
        """See to every champion that should answer and does not; says whether MLflow answered."""
        uri = self.settings.mlflow_tracking_uri
        try:
            services = list(self._services(uri))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            if uri not in self.told:
                self._tell(
                    uri, f"MLflow does not answer as it should at {uri} ({error}); asking on"
                )
            return False
        if self.told.pop(uri, ""):
            log.info("MLflow answers again")
        asking = time.monotonic() >= self.ask_at
        if asking:
            self.ask_at = time.monotonic() + ANSWERS_S
        for service in services:
            self._compare(service, asking)
        return True

    def _compare(self, service: Service, asking: bool) -> None:
        name, champion, seen_to, _ = service
        if champion == seen_to:
            if asking:
                self._mend(service)
            if name not in self.astray:
                self.told.pop(name, None)
        elif not champion:
            self._tell(name, f"{name} has no champion any more; what answers stays as it is")
        elif time.monotonic() >= self.resting.get((name, champion), 0.0) and self._serving():
            self._follow(name, champion)

    def _follow(self, name: str, champion: str) -> None:
        settled = self._settle(name, f"{name} version {champion} was crowned by hand")
        if settled and settled.again_s:
            self.resting[name, champion] = time.monotonic() + settled.again_s

    def _mend(self, service: Service) -> None:
        """Have a champion answer again where another version has answered for a while."""
        name, champion, _, live = service
        answers = self._answers(name) if champion and live else ""
        if answers in {champion, live}:
            self.astray.pop(name, None)
        elif answers:
            found, now = (champion, answers), time.monotonic()
            known, due = self.astray.get(name, (None, 0.0))
            if known != found:
                self.astray[name] = found, now + ASTRAY_S
            elif now >= due:
                why = f"{name} version {champion} is champion, but {answers} answers"
                if settled := self._settle(name, why):
                    self.astray[name] = found, now + (settled.again_s or BROKEN_S)

    def _answers(self, name: str) -> str:
        """The version that answers for a service; nothing where nobody, or somebody else, does."""
        url = f"{services_url(self.settings)}/{name}/healthz"
        try:
            answer = self.http.get(url, timeout=ANSWERING_S, auth=None)
            return str(answer.json()["version"]) if answer.status_code == 200 else ""
        except (httpx.TransportError, ValueError, KeyError, TypeError):
            return ""

    def _serving(self) -> bool:
        """Whether Serve's proxy is there, without which there is nothing to be settled."""
        base = services_url(self.settings)
        try:
            self.http.get(f"{base}/-/routes")
        except httpx.TransportError as error:
            if base not in self.told:
                self._tell(base, f"Ray Serve does not answer at {base} ({error}); asking on")
            return False
        if self.told.pop(base, ""):
            log.info("Ray Serve answers again")
        return True

    def _settle(self, name: str, why: str) -> Settled | None:
        """What came of a service; None while somebody else changes what is live."""
        try:
            if _busy(lock(self.settings, name, "live")):
                self._tell(name, f"{why}; waiting for whoever changes what is live")
                return None
            settled = self.settle(self.settings, name)
        except OSError as error:  # no memory for a process, no room for a lock
            settled = Settled(f"{name}: {error}", AGAIN_S)
        self._tell(name, settled.said)
        return settled

    def _services(self, uri: str) -> Iterator[Service]:
        """Those of ours; a registry may hold models of others."""
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/search"
        words = {"max_results": MOST}
        while True:
            answer = self.http.get(url, params=words)
            answer.raise_for_status()
            page: dict[str, Any] = dict(answer.json())
            for model in page.get("registered_models", []):
                tags = {tag["key"]: tag["value"] for tag in model.get("tags", [])}
                aliases = {a["alias"]: str(a["version"]) for a in model.get("aliases", [])}
                if "family" in tags:
                    known = tags.get(SEEN_TO, ""), tags.get(LIVE, "")
                    yield Service(model["name"], aliases.get(CHAMPION, ""), *known)
            if not page.get("next_page_token"):
                return
            words["page_token"] = page["next_page_token"]

    def _tell(self, about: str, words: str) -> None:
        """A line for the log, unless it is what was told last."""
        if self.told.get(about) != words:
            log.info("%s", words)
            self.told[about] = words


def settle(settings: Settings, service: str) -> Settled:
    """Put the champion of a service live, or refuse it, in this process."""
    from flows import services

    try:
        return Settled(services.reconcile(settings, service))
    except (PlatformError, RemoteError) as error:
        return Settled(f"{service}: {error}", AGAIN_S)
    except LyceumError as error:
        return Settled(f"{service}: the champion is refused: {error}")


def settle_aside(_: Settings, service: str) -> Settled:
    """The same in a process of its own, which reads the same settings and whose memory ends."""
    command = [sys.executable, "-m", "flows.reconcile", service]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False, timeout=SETTLING_S
        )
    except subprocess.TimeoutExpired:
        return Settled(f"{service}: nothing came of it in {SETTLING_S:.0f} s", AGAIN_S)
    if done.returncode not in {0, AGAIN}:
        return Settled(f"{service}: it broke, as the lines above say", BROKEN_S)
    return Settled(done.stdout.splitlines()[-1], AGAIN_S if done.returncode == AGAIN else 0.0)


def watch(settings: Settings, settle: Settle = settle_aside) -> None:
    """Look every few seconds, for as long as the platform is up."""
    with httpx.Client(timeout=ASKING_S, trust_env=False, auth=_password()) as http:
        reconciler = Reconciler(settings, http, settle)
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
    print(" ".join(settled.said.split()))  # noqa: T201
    sys.exit(AGAIN if settled.again_s else 0)


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
