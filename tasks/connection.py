"""MLflow itself: where it is, how it is reached, and what is said where it does not answer."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ray_jobs.errors import PlatformError
from ray_jobs.settings import Settings

SQLITE = "sqlite:///"


def tracking_uri(settings: Settings) -> str:
    """The tracking server of an installation, or the database in its home."""
    return settings.mlflow_tracking_uri or f"{SQLITE}{settings.home / 'mlflow.db'}"


def connect(uri: str) -> MlflowClient:
    """A client of a tracking server or of a database, which is made where there is none."""
    if uri.startswith(SQLITE):
        _make_database(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_database(path: Path) -> None:
    """Make MLflow's tables all at once, since it takes dozens of steps to make them itself.

    Two runs that met there would trip over each other, and a killed one leave half of them.
    """
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # slow; needed once a home

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        made_store = SqlAlchemyStore(f"{SQLITE}{made}", str(path.parent))  # type: ignore[no-untyped-call]
        made_store.engine.dispose()
        with contextlib.suppress(FileExistsError):  # another run was first: its tables hold
            os.link(made, path)


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Tell a server that went away, or that is broken, apart from a fault of ours.

    Raises PlatformError for what MLflow itself could not do.
    """
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() < 500:  # type: ignore[no-untyped-call]
            raise
        raise PlatformError(
            f"MLflow at {uri} could not do its part: {error}; see to it, then run the same command "
            "again: it goes on where it was"
        ) from error
