"""`lyceum erase`: one learner out of the store, and word of it on what had learnt from them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from typing import Any

from flows.audit import record
from flows.platform.locks import held, lock, nobody_runs
from ray_jobs import manifest
from ray_jobs.data.erasure import Erasure, Receipt
from ray_jobs.errors import UsageError
from ray_jobs.privacy import load_key
from ray_jobs.serving import forgetting
from ray_jobs.settings import Settings
from ray_jobs.training import shards
from tasks import connection
from tasks import register as registry
from tasks.record import Registry

log = logging.getLogger(__name__)


def erase(settings: Settings, learner: str) -> Receipt:
    """Erase a learner by the id that the logs have; again is no harm, and goes on where it was.

    Raises UsageError while a run is under way, PlatformError where MLflow does not
    answer: nothing is removed before it was told.
    """
    learner = learner.strip()
    if not learner:
        raise UsageError("no learner named; give the id as the logs have it")
    with record(settings, "erase", "a learner") as details:
        receipt = _erased(settings, learner, details)
        details["versions"] = receipt.versions
    return receipt


def _erased(settings: Settings, learner: str, details: dict[str, Any]) -> Receipt:
    manifest.check(settings.store_uri)
    mlflow = Registry.at(settings)
    erasure = Erasure(learner, settings.store_uri, load_key(settings.key_file))
    details["receipt"] = erasure.receipt.learner
    with (
        held(lock(settings, "data", "erase"), "another erasure", lambda who: log.info("%s", who)),
        nobody_runs(settings, "erase"),
        connection.answering(mlflow.uri),
    ):
        erasure.rewrite()
        receipt = erasure.receipt
        flagged = registry.flag(mlflow.client, receipt.digests, receipt.learner)
        receipt.versions = sorted({*receipt.versions, *flagged})
        # Replicas hold rows, too, and write none of theirs once they have seen the tombstone.
        time.sleep(forgetting.KNOWN_S)
        erasure.remove()
        # What a run that was killed left for the next one; it names nobody, and yet is of them.
        shutil.rmtree(shards.cache(settings.home), ignore_errors=True)
    return receipt


def told(receipt: Receipt) -> Iterator[str]:
    """A receipt in words; who was erased, only their owner knows."""
    yield f"erased, receipt {receipt.learner}, asked for {receipt.asked}"
    for name, change in receipt.snapshots.items():
        after = f"is now {change.after[:12]}" if change.after else "held nobody else, and is gone"
        same = " (only lines that name them)" if change.before == change.after else ""
        yield f"snapshot {name} ({change.before[:12]}) {after}{same}"
    yield (
        f"removed: {len(receipt.pieces)} readings of files, {len(receipt.tables)} results made of "
        f"them, {receipt.repairs} mended rows, {receipt.answers} rows of what services answered"
    )
    for version in receipt.versions:
        yield f"{version} had learnt from them: run its recipe again, and promote what comes of it"
    yield "Their rows in your own files are left out from now on; delete them there yourself."
