"""What MLflow is told of a run: one run per lineage, each step and figure once.

Everything goes through an explicit client, never through MLflow's global state,
and may be repeated: a task that restarts finds its run and adds what is missing.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient

from ray_jobs import store
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.split import NAMES, SplitTable
from ray_jobs.evaluation import Evaluation
from ray_jobs.intervals import Interval
from ray_jobs.training.events import SYSTEM, Event
from tasks.figures import named_figures, slice_table
from tasks.provenance import flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAGE = "lineage"
EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
TEXT_LENGTH = 6000  # characters MLflow keeps of a parameter, and of a tag at least
DIGEST_LENGTH = 16  # characters of a data set's digest on MLflow's pages, which keep 36
# Without it MLflow's pages are laid out for language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}


def open_run(
    client: MlflowClient,
    *,
    service: str,
    lineage: str,
    name: str,
    artifacts: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """The id of the one run of a lineage in a service's experiment, opened or opened again.

    `artifacts` is the folder on the store below which the service's files go;
    `params` are those of `recipe.as_dict`, nested as they are.
    """
    experiment_id = experiment(client, service, store.join(artifacts, service))
    run_id = find_run(client, experiment_id, lineage)
    if run_id is None:
        created = client.create_run(experiment_id, tags={**tags, LINEAGE: lineage}, run_name=name)
        # Two flows of one lineage may start at once: both settle on the older run.
        run_id = find_run(client, experiment_id, lineage)
        assert run_id is not None
        if run_id != created.info.run_id:
            client.delete_run(created.info.run_id)
    client.update_run(run_id, status="RUNNING")
    _log_params(client, run_id, flat(params))
    client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
    return run_id


def experiment(client: MlflowClient, service: str, artifacts: str) -> str:
    """The id of a service's experiment, made where there is none."""
    found = client.get_experiment_by_name(service)
    if found is None:
        location = artifacts
        if store.is_local(artifacts):
            location = store.local_path(artifacts).absolute().as_uri()
        try:
            return str(client.create_experiment(service, artifact_location=location, tags=KIND))
        except MlflowException as error:
            if error.error_code != EXISTS:
                raise
            found = client.get_experiment_by_name(service)
    assert found is not None
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def find_run(client: MlflowClient, experiment_id: str, lineage: str) -> str | None:
    """The oldest run of a lineage, or None."""
    found = client.search_runs(
        [experiment_id],
        filter_string=f"tags.{LINEAGE} = '{lineage}'",
        run_view_type=ViewType.ACTIVE_ONLY,
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None


def close_run(client: MlflowClient, run_id: str, *, error: str = "") -> None:
    """End a run; with an error it has failed, and says why."""
    if error:
        client.set_tag(run_id, "error", error[:TEXT_LENGTH])
    elif "error" in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, "error")
    client.set_terminated(run_id, status="FAILED" if error else "FINISHED")


def run_page(client: MlflowClient, run_id: str, artifact: str = "") -> str | None:
    """The run, or a file of it, in a browser; None where there is a database and no server."""
    uri = str(client.tracking_uri).rstrip("/")
    if not uri.startswith("http"):
        return None
    experiment_id = client.get_run(run_id).info.experiment_id
    # Without the last part a fresh browser shows the pages meant for language models.
    place = f"{run_id}/artifacts/{artifact}" if artifact else run_id
    return f"{uri}/#/experiments/{experiment_id}/runs/{place}?workflowType=machine_learning"


class StepLog:
    """Logs each epoch once, whatever restarted: what the run has already is left alone.

    The figures are `epoch/train_loss` and the like, so that MLflow charts them first,
    and those of the nodes `system/node-0/cpu_utilization_percentage`, on a page of their own.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._known: dict[str, set[int]] = {}

    def log(self, events: Iterable[Event]) -> int:
        """Log the epochs among events; returns how many figures were new."""
        metrics = [m for event in events if event.kind == "epoch" for m in self._new(event)]
        if metrics:
            self._client.log_batch(self._run_id, metrics=metrics)
        return len(metrics)

    def _new(self, event: Event) -> list[Metric]:
        fresh = []
        for name, value in event.metrics.items():
            key = name if name.startswith(SYSTEM) else f"epoch/{name}"
            if event.step not in self._steps(key):
                self._steps(key).add(event.step)
                fresh.append(Metric(key, value, int(event.time * 1000), event.step))
        return fresh

    def _steps(self, key: str) -> set[int]:
        if key not in self._known:
            history = self._client.get_metric_history(self._run_id, key)
            self._known[key] = {m.step for m in history}
        return self._known[key]


def log_evaluation(
    client: MlflowClient,
    run_id: str,
    evaluation: Evaluation,
    *,
    others: Mapping[str, Evaluation] | None = None,
    differences: Mapping[str, Mapping[str, Interval]] | None = None,
) -> None:
    """Log the figures with their intervals, those of other models, and the slices.

    `others` and `differences` are keyed by what the candidate is compared with:
    "baseline", "champion"; their figures come as `of_baseline/auc`, the gains with
    their bounds as `gain_over_baseline/auc`.
    """
    figures = named_figures(evaluation.metrics, "")
    for name, other in (others or {}).items():
        figures |= {f"of_{name}/{key}": f.value for key, f in other.metrics.items()}
    for name, difference in (differences or {}).items():
        figures |= named_figures(difference, f"gain_over_{name}/")
    log_once(client, run_id, figures)
    log_json(client, run_id, "evaluation/evaluation.json", evaluation.as_dict())
    for name, other in (others or {}).items():
        log_json(client, run_id, f"evaluation/{name}.json", other.as_dict())
    buffer = io.BytesIO()
    slice_table(evaluation).write_csv(buffer)
    client.log_text(run_id, buffer.getvalue().decode(), "evaluation/slices.csv")


def log_crossing(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, Interval],
    difference: Mapping[str, Interval],
) -> None:
    """Log figures over all folds as `folds/auc`, the gains as `folds/gain_over_baseline/auc`."""
    figures = named_figures(metrics, "folds/")
    log_once(client, run_id, figures | named_figures(difference, "folds/gain_over_baseline/"))


def log_data(client: MlflowClient, run_id: str, clean: CleanTable, split: SplitTable) -> None:
    """Log the three splits as inputs with digest and counts."""
    inputs = [
        DatasetInput(_dataset(clean, split, name), [InputTag("mlflow.data.context", name)])
        for name in NAMES
    ]
    client.log_inputs(run_id, datasets=inputs)
    client.set_tag(run_id, "data_digest", clean.digest)


def log_files(client: MlflowClient, run_id: str, folder: str, uris: Iterable[str]) -> None:
    """Log text files of the store under their names, over those of an earlier attempt."""
    for uri in uris:
        name = uri.rsplit("/", 1)[-1]
        client.log_text(run_id, store.read_bytes(uri).decode(), f"{folder}/{name}")


def log_figures(client: MlflowClient, run_id: str, figures: Mapping[str, Figure]) -> None:
    """Log plots as `plots/<name>.png`, over those of an earlier attempt."""
    for name, figure in figures.items():
        client.log_figure(run_id, figure, f"plots/{name}.png", save_kwargs={"dpi": 100})


def log_json(client: MlflowClient, run_id: str, path: str, value: Any) -> None:
    """Log a JSON artifact, undefined numbers as null."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    client.log_text(run_id, orjson.dumps(value, option=options).decode(), path)


def log_once(client: MlflowClient, run_id: str, figures: Mapping[str, float]) -> None:
    """Log figures of a whole run, but for those that it has already."""
    known, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    fresh = {k: v for k, v in figures.items() if not math.isnan(v) and known.get(k) != v}
    # Of one key MLflow shows the latest, and of several at one time the greatest.
    client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in fresh.items()])


def _dataset(clean: CleanTable, split: SplitTable, name: str) -> Dataset:
    counts = {"rows": split.rows, "scored": split.scored, "groups": split.groups}
    return Dataset(
        name=name,
        digest=clean.digest[:DIGEST_LENGTH],
        source_type="local" if store.is_local(split.uri) else split.uri.split("://")[0],
        source=orjson.dumps({"uri": split.table(name)}).decode(),
        profile=orjson.dumps({k: v[name] for k, v in counts.items()}).decode(),
    )


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    # Lineage follows content: the same data from another folder is the same run,
    # which keeps the parameters it began with.
    known = client.get_run(run_id).data.params
    fresh = [Param(k, v[:TEXT_LENGTH]) for k, v in params.items() if k not in known]
    for start in range(0, len(fresh), 100):
        client.log_batch(run_id, params=fresh[start : start + 100])
