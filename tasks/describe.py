"""Describe: what a run's data holds, that nothing leaks, and how far it has moved."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from prefect import task

from ray_jobs import code, manifest, store
from ray_jobs.data import profile as profiling
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.drift import drifts
from ray_jobs.data.history import DESCRIBE, PAGE, parent, taken
from ray_jobs.data.profile import Profile
from ray_jobs.data.proof import Proof, prove
from ray_jobs.data.snapshot import Snapshot
from ray_jobs.data.split import NAMES, SplitTable
from ray_jobs.errors import StoreError
from ray_jobs.serving.release import Release
from tasks import dataplots, datasheet, drawing, sheet
from tasks.run import Run
from tasks.sheet import Comparison, File, Sheet

log = logging.getLogger(__name__)

LOOKS = (sheet, datasheet, dataplots, drawing)  # the code that makes a page of numbers
PREVIOUS = "the previous snapshot"
CHAMPION = "the data of the champion"


@dataclass(frozen=True)
class Described:
    """A data report on the store."""

    uri: str  # folder
    service: str
    family: str
    protocol: str
    snapshot: str  # name
    table: dict[str, Any]  # the clean table, as it was recorded
    page: str  # HTML
    document: str  # JSON
    summary: str  # Markdown


FIELDS = {field.name for field in fields(Described)}


@dataclass(frozen=True)
class Reference:
    """Data that a run's own is compared with."""

    against: str
    name: str = ""
    table: CleanTable | None = None
    why: str = ""  # there is none

    @property
    def key(self) -> list[str]:
        return [self.against, self.name, self.table.content if self.table else "", self.why]


@task(name="describe")
def describe(
    run: Run, snapshot: Snapshot, table: CleanTable, splits: SplitTable, champion: Release | None
) -> tuple[Described, bool]:
    """Report on the data of a run; raises StoreError where its splits leak."""
    references = [previous(run, snapshot), trained_on(run, table, champion)]
    inputs = {
        "snapshot": snapshot.name,
        "table": _apart_from_place(asdict(table)),
        "splits": _apart_from_place(splits.as_dict()),
        "service": run.recipe.service,
        "limit": run.recipe.max_bad_fraction,
        "references": [reference.key for reference in references],
        "code": [code.digest(profiling, drifts, prove), *map(inspect.getsource, LOOKS)],
    }

    def work(uri: str) -> dict[str, Any]:
        told = _told(run, snapshot, table, splits, references)
        return asdict(write(told, uri=uri))

    result, cached = manifest.once(run.store, DESCRIBE, inputs, work)
    return Described(**result), cached


def _apart_from_place(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name != "uri"}


def accounts(run: Run, snapshot: Snapshot, table: CleanTable) -> Sheet:
    """The report of what became of rows, and no more: all there is where they were refused."""
    return Sheet(
        service=run.recipe.service,
        family=run.recipe.family,
        rows=run.protocol.rows,
        protocol=run.protocol.words,
        ordered=run.family.ordered,
        table=table,
        limit=run.recipe.max_bad_fraction,
        files=[File(piece.files, piece.rows, piece.malformed) for piece in snapshot.pieces],
    )


def write(told: Sheet, *, uri: str) -> Described:
    """Write a report into a folder, as JSON and as a page."""
    described = Described(
        uri=uri,
        service=told.service,
        family=told.family,
        protocol=told.protocol,
        snapshot=told.snapshot,
        table=asdict(told.table),
        page=store.join(uri, PAGE),
        document=store.join(uri, "report.json"),
        summary=sheet.markdown(told),
    )
    store.write_json(described.document, sheet.document(told))
    store.write_bytes(described.page, datasheet.page(told).encode())
    for line in sheet.headlines(told)[1:]:
        log.info("describe: %s", line)
    return described


def previous(run: Run, snapshot: Snapshot) -> Reference:
    """The data that this grew out of, or else what the service had before it."""
    try:
        everything = [other for _, other in taken(run.store)]
    except StoreError as error:
        return Reference(PREVIOUS, why=str(error))
    before = everything[: [other.name for other in everything].index(snapshot.name)]
    known, names = _described(run), [other.name for other in reversed(before)]
    own = [n for n in names if n in known and known[n].service == run.recipe.service]
    for name in [parent(snapshot, before), *own]:
        if name in known:
            return Reference(PREVIOUS, name, CleanTable(**known[name].table))
    why = f"none of {run.recipe.service} was described under this protocol before this one"
    return Reference(PREVIOUS, why=why)


def trained_on(run: Run, table: CleanTable, champion: Release | None) -> Reference:
    """The data that the champion was trained on, unless it is this."""
    digest = champion.card["data"]["digest"] if champion else table.digest
    if digest == table.digest:
        return Reference(CHAMPION, why="no champion was trained on other data")
    for found in _described(run).values():
        if found.table["digest"] == digest:
            return Reference(CHAMPION, found.snapshot, CleanTable(**found.table))
    why = f"no report under this protocol on its data, {digest[:12]}, lies in this store"
    return Reference(CHAMPION, why=why)


def _described(run: Run) -> dict[str, Described]:
    """A report on each snapshot that was taken for one of the family: of this service, if any.

    Under another protocol the same snapshot has other rows.
    """
    found = (one["result"] for one in manifest.kept(run.store, DESCRIBE))
    # Another Lyceum may have told more, or less.
    reports = [Described(**one) for one in found if one.keys() == FIELDS]
    kind = (run.recipe.family, run.protocol.words)
    alike = [report for report in reports if (report.family, report.protocol) == kind]
    alike.sort(key=lambda report: report.service == run.recipe.service)
    return {report.snapshot: report for report in alike}


def _told(
    run: Run,
    snapshot: Snapshot,
    table: CleanTable,
    splits: SplitTable,
    references: Iterable[Reference],
) -> Sheet:
    mine = profile_of(run, table)
    return replace(
        accounts(run, snapshot, table),
        profile=mine,
        splits=splits,
        proof=_proved(run, splits),
        comparisons=[_compared(run, mine, reference) for reference in references],
    )


def _proved(run: Run, splits: SplitTable) -> Proof:
    tables = {name: splits.table(name) for name in NAMES}
    expected = sum(splits.groups.values())
    found = prove(tables, group=run.family.group, cut=splits.cut, groups=expected)
    if found.fault:
        raise StoreError(f"the splits in {splits.uri} leak: {found.fault}; remove that folder")
    return found


def _compared(run: Run, mine: Profile, reference: Reference) -> Comparison:
    if reference.table is None:
        return Comparison(reference.against, reference.name, [], reference.why)
    try:
        theirs = profile_of(run, reference.table)
    except StoreError as error:
        return Comparison(reference.against, reference.name, [], str(error))
    return Comparison(reference.against, reference.name, drifts(mine, theirs))


def profile_of(run: Run, table: CleanTable) -> Profile:
    """The profile of a clean table of the family, kept; raises StoreError where it is gone."""
    family = run.family
    group, label, keys = family.group, family.label, family.keys
    inputs = {
        "table": table.content,
        "columns": [group, label, *keys],
        "code": code.digest(profiling),
    }

    def work(uri: str) -> dict[str, Any]:
        found = profiling.profile(table.table, group=group, label=label, keys=keys)
        kept = store.join(uri, "profile.json")
        store.write_json(kept, found.as_dict())
        return {"profile": kept}

    result, _ = manifest.once(run.store, "profile", inputs, work)
    return Profile.loads(store.read_json(result["profile"]))
