"""The registry: a version per lineage, and the aliases that say which one serves.

A version names its artifact on the store by URI and digest; replicas read it
there, so a service runs on with MLflow down. Everything may be repeated.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import pyfunc
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

import ray_jobs
from ray_jobs.errors import UsageError
from ray_jobs.evaluation import Evaluation
from ray_jobs.families import Api
from tasks.tracking import LINEAGE

log = logging.getLogger(__name__)

CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
SEEN_TO = "crowned"  # service tag: the champion that Lyceum saw to; one beside it came by hand
LIVE = "live"  # service tag: the champion that went live last; one may be crowned and wait
REFUSED = "refused"  # version tag: why it did not go live when it was crowned by hand
ERASED = "erased"  # tag of versions and runs: an erasure after they had learnt from its learner
MOST = 10_000  # versions, or runs, of the same data
PARENT = "parent"  # version tag: lineage of the version that its training began from
HEADLINE = "headline"  # version tag: which of its tags is the figure that the gate read
TEXT = "text"  # the one kind of column that MLflow may check
LONGEST = 1000  # characters of a reason
DESCRIPTION = (
    "Models of the service `{0.service}`, of the family `{0.family}`. `champion` is the one that "
    "serves, `challenger` the latest candidate, `previous` the champion before."
)
WRAPPER = Path(__file__).with_name("pyfunc.py")


@dataclass(frozen=True)
class Version:
    """A registered version, and where its artifact lies."""

    service: str
    version: int
    lineage: str
    artifact: str  # URI on the store
    digest: str  # of the artifact
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Candidate:
    """What is to be registered."""

    service: str
    family: str
    run_id: str
    lineage: str
    artifact: str  # URI on the store
    folder: Path  # the same, on this machine
    digest: str
    spec: str
    protocol: str
    data_digest: str
    card: str  # Markdown
    evaluation: Evaluation
    parent: str = ""  # lineage of the version that training began from

    @property
    def tags(self) -> dict[str, str]:
        """What a version says of itself."""
        figure, name = self.evaluation.headline, self.evaluation.of_kind.headline
        begun = {PARENT: self.parent} if self.parent else {}
        return {
            **begun,
            name: f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]",
            HEADLINE: name,
            "spec": self.spec,
            LINEAGE: self.lineage,
            "data_digest": self.data_digest,
            "artifact": self.artifact,
            "artifact_digest": self.digest,
            "family": self.family,
            "protocol": self.protocol,
        }


def register(client: MlflowClient, candidate: Candidate, *, api: Api, vocabulary: Any) -> Version:
    """The version of a candidate's lineage, made where there is none, as `challenger`.

    `api` is the family's, which describes the frame of a model by its vocabulary.
    """
    found = _of_lineage(client, candidate.service, candidate.lineage)
    if found is None:
        signature = signature_of(api, vocabulary)
        example = pd.DataFrame(api.example(vocabulary))
        model = _logged_model(client, candidate, signature, example)
        found = _new_version(client, candidate, model)
        log.info("registered %s version %s", candidate.service, found.version)
    client.set_tag(candidate.run_id, "mlflow.note.content", candidate.card)
    client.update_model_version(candidate.service, str(found.version), candidate.card)
    client.set_registered_model_alias(candidate.service, CHALLENGER, str(found.version))
    return _version(client.get_model_version(candidate.service, str(found.version)))


def flag(client: MlflowClient, digests: Iterable[str], receipt: str) -> list[str]:
    """Say on versions and runs that data they had learnt from was erased since; names of versions.

    Raises MlflowException where the registry does not answer.
    """
    flagged = []
    experiments = [e.experiment_id for e in client.search_experiments(max_results=MOST)]
    waiting = [f"tags.data_digest = '{digest}'" for digest in sorted(digests)]
    while waiting:
        of = waiting.pop()
        for version in client.search_model_versions(of, max_results=MOST):
            client.set_model_version_tag(version.name, str(version.version), ERASED, receipt)
            flagged.append(f"{version.name} version {version.version}")
            # What began from it knows what it knew.
            waiting.append(f"tags.{PARENT} = '{version.tags.get(LINEAGE, 'none')}'")
        for run in client.search_runs(experiments, of, max_results=MOST):
            client.set_tag(run.info.run_id, ERASED, receipt)
    return flagged


def crown(client: MlflowClient, service: str, version: int) -> Version:
    """Make a version champion; the one before stays at hand as `previous`."""
    chosen = resolve(client, service, version)
    # Whom somebody has crowned by hand since was never live.
    before = seen_to(client, service) or find(client, service, CHAMPION)
    if before is not None and before.version != version:
        client.set_registered_model_alias(service, PREVIOUS, str(before.version))
    # Before the alias, which would else look as if it had been moved by hand.
    _saw_to(client, chosen)
    client.set_registered_model_alias(service, CHAMPION, str(version))
    log.info("%s: version %d is champion", service, version)
    return chosen


def seen_to(client: MlflowClient, service: str) -> Version | None:
    """The champion that Lyceum saw to last: crowned, put live, or put back."""
    number = client.get_registered_model(service).tags.get(SEEN_TO)
    return find(client, service, number) if number else None


def follow(client: MlflowClient, crowned: Version, before: Version | None) -> None:
    """After a version that was crowned by hand went live: the one before stays at hand."""
    if before is not None and before.version != crowned.version:
        client.set_registered_model_alias(crowned.service, PREVIOUS, str(before.version))
    _saw_to(client, crowned)


def went_live(client: MlflowClient, service: str, version: int) -> None:
    """Know, after its crowning, that a champion answers: what answers else was left halfway."""
    client.set_registered_model_tag(service, LIVE, str(version))


def live(client: MlflowClient, service: str) -> str | None:
    """The number of the champion that went live last."""
    number = client.get_registered_model(service).tags.get(LIVE)
    return str(number) if number else None


def blame(client: MlflowClient, crowned: Version, reason: str) -> None:
    """Say on a version that was crowned by hand why it does not serve."""
    number = str(crowned.version)
    client.set_model_version_tag(crowned.service, number, REFUSED, reason[:LONGEST])


def refuse(client: MlflowClient, crowned: Version, before: Version | None) -> None:
    """Who was champion before one that was crowned by hand is so again.

    Where there was none, the alias stays. Whoever crowned another meanwhile is not undone.
    """
    service = crowned.service
    now = find(client, service, CHAMPION)
    if now is None or now.version != crowned.version:
        return
    left = before or crowned
    client.set_registered_model_tag(service, SEEN_TO, str(left.version))
    client.set_registered_model_alias(service, CHAMPION, str(left.version))


def find(client: MlflowClient, service: str, which: str | int) -> Version | None:
    """The version behind an alias or a number, or None."""
    text = str(which)
    try:
        if text.isdigit():
            return _version(client.get_model_version(service, text))
        return _version(client.get_model_version_by_alias(service, text))
    except MlflowException as error:
        # An unknown alias is "invalid" to MLflow, an unknown version or service "missing".
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def resolve(client: MlflowClient, service: str, which: str | int) -> Version:
    """The version behind an alias or a number; raises UsageError with what there is."""
    found = find(client, service, which)
    if found is not None:
        return found
    versions = client.search_model_versions(f"name = '{service}'")
    numbers = ", ".join(str(v) for v in sorted(int(v.version) for v in versions))
    raise UsageError(
        f"service {service!r} has no version {str(which)!r}; "
        + (f"there are {numbers}" if numbers else "nothing is registered under that name")
    )


def signature_of(api: Api, vocabulary: Any) -> ModelSignature:
    """MLflow's signature of a model's frame."""
    # MLflow refuses whole numbers where a double is due, unix seconds for instance, so
    # numbers are "any" to it; the family's own frame checks them with better messages.
    whatever = AnyType()  # type: ignore[no-untyped-call]
    inputs = [
        ColSpec(DataType.string if c.kind == TEXT else whatever, c.name, required=c.required)
        for c in api.columns(vocabulary)
    ]
    outputs = [ColSpec(DataType.double, name) for name in api.outputs(vocabulary)]
    return ModelSignature(inputs=Schema([*inputs]), outputs=Schema([*outputs]))


def _saw_to(client: MlflowClient, version: Version) -> None:
    """Know a champion that serves, or may, and take back what an earlier refusal said of it."""
    client.set_registered_model_tag(version.service, SEEN_TO, str(version.version))
    if REFUSED in version.tags:
        client.delete_model_version_tag(version.service, str(version.version), REFUSED)


def _of_lineage(client: MlflowClient, service: str, lineage: str) -> ModelVersion | None:
    found = client.search_model_versions(
        f"name = '{service}' and tags.{LINEAGE} = '{lineage}'",
        order_by=["version_number ASC"],
        max_results=1,
    )
    return found[0] if found else None


def _logged_model(
    client: MlflowClient, candidate: Candidate, signature: ModelSignature, example: pd.DataFrame
) -> LoggedModel:
    """Log the model below its run; a finished one of the lineage is used again."""
    experiment_id = client.get_run(candidate.run_id).info.experiment_id
    ready = client.search_logged_models(
        [experiment_id], filter_string=f"tags.{LINEAGE} = '{candidate.lineage}'"
    )
    for model in ready:
        if model.status == LoggedModelStatus.READY:
            return model
    model = client.create_logged_model(
        experiment_id,
        name=candidate.service,
        source_run_id=candidate.run_id,
        tags=candidate.tags,
        params={"spec": candidate.spec, "family": candidate.family},
        model_type=candidate.family,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        pyfunc.save_model(
            path=path,
            python_model=str(WRAPPER),
            artifacts={"artifact": str(candidate.folder)},
            # Named, not inferred: inference takes ten seconds and guesses.
            pip_requirements=[f"lyceum[platform]=={ray_jobs.__version__}"],
            signature=signature,
            input_example=example,
            mlflow_model=Model(run_id=candidate.run_id, model_id=model.model_id),
        )
        client.log_model_artifacts(model.model_id, str(path))
    client.log_outputs(candidate.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _new_version(client: MlflowClient, candidate: Candidate, model: LoggedModel) -> ModelVersion:
    try:
        client.create_registered_model(
            candidate.service, {"family": candidate.family}, DESCRIPTION.format(candidate)
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    return client.create_model_version(
        candidate.service,
        # Not `models:/<id>`: MLflow would look that up through its global tracking URI.
        source=model.artifact_location,
        run_id=candidate.run_id,
        tags=candidate.tags,
        description=candidate.card,
        model_id=model.model_id,
    )


def _version(found: ModelVersion) -> Version:
    tags = dict(found.tags)
    return Version(
        service=str(found.name),
        version=int(found.version),
        lineage=tags.get(LINEAGE, ""),
        artifact=tags.get("artifact", ""),
        digest=tags.get("artifact_digest", ""),
        run_id=str(found.run_id or ""),
        tags=tags,
    )
