"""A home of its own for a test, and the command line on it as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.families.knowledge.world import World

LYCEUM = Path(sys.executable).with_name("lyceum")
FOREIGN = ("MLFLOW_", "PREFECT_", "RAY_", "LYCEUM_")


SCHOOL = World(seed=3, learners=150, items=60, skills=5)


@dataclass(frozen=True)
class Installation:
    """A home, a log to learn from, and the environment of commands."""

    home: Path
    data: Path
    environment: dict[str, str]

    @classmethod
    def of(cls, folder: Path, data: Path, **variables: str) -> Installation:
        """An installation in a folder; nothing of the caller's own reaches it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        own = {"LYCEUM_HOME": str(folder / "home"), "LYCEUM_KEY_FILE": str(folder / "key")}
        return cls(folder / "home", data, {**kept, **own, **variables})

    @classmethod
    @contextmanager
    def lent(
        cls, folder: Path, data: Path, *, up: bool, **variables: str
    ) -> Iterator[Installation]:
        """The same, with its platform up or not, and down with the block."""
        here = cls.of(folder, data, **variables)
        try:
            if up:
                here.lyceum("up")
            yield here
        finally:
            here.lyceum("down")

    def lyceum(self, *words: str, status: int = 0, limit_s: float = 400) -> str:
        """Run a command; its standard output. Fails with both streams on another exit status."""
        done = self.start(*words)
        out, err = done.communicate(timeout=limit_s)
        assert done.returncode == status, f"lyceum {words}: {done.returncode}\n{out}\n{err}"
        return out if status == 0 else err

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [str(LYCEUM), *words], env=self.environment, cwd=self.home.parent, **pipes
        )

    def run(self, *words: str) -> dict[str, Any]:
        """`lyceum run` with a report, and the report."""
        path = self.home.parent / "report.json"
        self.lyceum("run", *words, "--json", str(path))
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def key(self, service: str, *words: str) -> dict[str, str]:
        """A key of a service by `lyceum keys`, as the header of a request."""
        told = json.loads(
            self.lyceum("keys", "create", service, "--name", "test", "--json", *words)
        )
        return {"authorization": f"Bearer {told['key']}"}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lyceum("status", "--json"))
        return found
