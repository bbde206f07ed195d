"""What training begins from: the champion where that may be, and else nothing, with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from ray_jobs import artifact
from ray_jobs.data.clean import CleanTable
from ray_jobs.data.raw import BY_PLACE
from ray_jobs.data.split import SplitTable
from ray_jobs.families import recipe
from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.vocabulary import Vocabulary
from ray_jobs.recipe import Recipe
from ray_jobs.serving.release import Release
from ray_jobs.settings import Settings
from tasks import register, start
from tasks.record import RELEASE, Registry
from tasks.run import Run
from tests.registry_parts import connected

ROWS = {"train": 6, "validation": 1, "test": 2}
SPLITS = SplitTable("/store/split", False, ROWS, ROWS, ROWS, None, 0, "s1")
DIVISION = {
    "delivered": False, "test": 0.2, "validation": 0.1, "until": 1.0, "cut": None, "learner": "",
}  # fmt: skip
SERVICE = "algebra"


def data(digest: str) -> CleanTable:
    return CleanTable("/store/clean", digest, 10, 10, {}, 0, 0, True)


class School:
    """An installation with a registry, and versions of one service in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home", key_file=folder / "key")
        self.client: MlflowClient = connected(self.settings)
        self.registry = Registry(self.client, "")
        self.client.create_registered_model(SERVICE)

    def champion(self, learnt_from: str, *, width: int = 16, **facts: Any) -> Release:
        """A new champion, with weights on disk."""
        spec, words = SPECS["lstm"](width=width, neighbours=4), Vocabulary(("i",), ("s",))
        made = self.client.create_model_version(SERVICE, source=str(self.folder))
        number = str(made.version)
        torch.manual_seed(int(number))
        place = self.folder / f"model-{number}"
        digest = artifact.write(
            place,
            kind="knowledge",
            spec=spec,
            vocabulary=words,
            module=spec.build(words),
            about={},
        )
        told = {"division": DIVISION, "card": {"data": {"digest": learnt_from}}, **facts}
        release = Release(
            service=SERVICE,
            family="knowledge",
            lineage=f"lineage {number}",
            artifact=str(place),
            digest=digest,
            golden=[],
            version=number,
            **told,
        )
        release.save(self.uri(release))
        self.client.set_model_version_tag(SERVICE, number, RELEASE, self.uri(release))
        self.client.set_registered_model_alias(SERVICE, register.CHAMPION, number)
        return release

    def uri(self, release: Release) -> str:
        return str(self.folder / f"release-{release.version}.json")

    def run(self, **asked: str) -> Run:
        plain: Recipe = replace(recipe("knowledge"), service=SERVICE)
        usual = {"spec.width": "16", "spec.neighbours": "4", "start.champion": "true"}
        return Run(plain.overridden(**{**usual, **asked}), self.settings)

    def begun(self, digest: str, splits: SplitTable = SPLITS, /, **asked: str) -> start.Begun:
        return start.begun(self.run(**asked), self.registry, data(digest), splits)


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(tmp_path)


def test_new_data_begins_from_the_champion_where_that_is_asked_for(school: School) -> None:
    assert school.begun("d1").why == "algebra has no champion yet"
    champion = school.champion("d1")
    found = school.begun("d2")
    assert found.parent == champion
    assert found.tags == {"parent": "lineage 1", "parent_version": "1"}
    assert school.begun("d2", SPLITS, **{"start.champion": "false"}) == start.Begun(
        None, start.NOT_ASKED
    )


def test_data_that_a_champion_has_learnt_begins_where_it_began(school: School) -> None:
    """So that a run told again is the same run, and its model the champion that it is."""
    first = school.champion("d1")
    assert school.begun("d1").parent is None
    assert "learnt from this very data" in school.begun("d1").why
    school.champion("d2", parent=school.uri(first))
    assert school.begun("d2").parent == first
    assert school.begun("d3").parent == school.registry.champion(SERVICE)
    Path(school.uri(first)).unlink()
    assert "cannot be read" in school.begun("d2").why


@pytest.mark.parametrize(
    ("facts", "asked", "why"),
    [
        ({"division": {**DIVISION, "test": 0.3}}, {}, "divided otherwise"),
        ({"division": {}}, {}, "divided otherwise (unknown, now {'delivered': False"),
        ({}, {"split.validation": "0.2"}, "divided otherwise"),
        ({}, {"split.until": "0.8"}, "divided otherwise"),
        ({}, {"columns.learner": "email"}, "divided otherwise"),
        ({"width": 8}, {}, "its network has another shape: width 8"),
        ({"digest": ""}, {}, "is not what was released"),
        ({"artifact": "/nowhere"}, {}, "nowhere"),
    ],
)
def test_a_champion_that_is_no_start_is_none_and_the_reason_is_told(
    school: School, facts: dict[str, Any], asked: dict[str, str], why: str
) -> None:
    late = {key: facts[key] for key in ("digest", "artifact") if key in facts}
    champion = school.champion("d1", **{k: v for k, v in facts.items() if k not in late})
    replace(champion, **late).save(school.uri(champion))
    found = school.begun("d2", SPLITS, **asked)
    assert found.parent is None
    assert found.why.startswith("version 1 is no start: ")
    assert why in found.why


def test_a_split_that_came_with_the_data_proves_nothing_of_earlier_data(school: School) -> None:
    school.champion("d1")
    found = school.begun("d2", replace(SPLITS, delivered=True))
    assert found.parent is None
    assert "came with its split" in found.why


def test_what_a_champion_learnt_lies_before_all_that_is_asked(school: School) -> None:
    """A log to which older rows came is cut earlier than it was."""
    until = {"split.until": "0.8"}
    school.champion("d1", division={**DIVISION, "until": 0.8, "cut": 100.0})
    later, earlier = (school.begun("d2", replace(SPLITS, cut=c), **until) for c in (100.0, 99.0))
    assert later.parent is not None
    assert earlier.parent is None
    assert "learnt from what came after the cut" in earlier.why
    school.champion("d1", division={**DIVISION, "until": 0.8})
    assert school.begun("d2", replace(SPLITS, cut=100.0), **until).parent is None


def test_who_is_known_by_a_place_in_a_file_may_be_somebody_else_now(school: School) -> None:
    school.champion("d1")
    placed = replace(data("d2"), notes=[BY_PLACE])
    found = start.begun(school.run(), school.registry, placed, SPLITS)
    assert found.parent is None
    assert "known by their place in the file alone" in found.why


def test_who_was_erased_lives_on_in_no_successor(school: School) -> None:
    champion = school.champion("d1")
    school.client.set_model_version_tag(SERVICE, champion.version, register.ERASED, "receipt")
    found = school.begun("d2")
    assert found.parent is None
    assert "learnt from somebody who was erased" in found.why


def test_another_start_is_another_lineage_and_the_same_start_the_same(school: School) -> None:
    first, run = school.champion("d1"), school.run()
    cold = run.lineage(data("d2"), SPLITS)
    warm = replace(run, parent=first)
    told = warm.lineage(data("d2"), SPLITS)
    assert told != cold
    assert start.from_nothing(warm).lineage(data("d2"), SPLITS) == cold
    assert replace(run, parent=school.champion("d1")).lineage(data("d2"), SPLITS) != told
    for changed in ({"start.kept": "0.5"}, {"start.epochs": "3"}):
        other = replace(school.run(**changed), parent=first)
        assert other.lineage(data("d2"), SPLITS) != told
        assert start.from_nothing(other).lineage(data("d2"), SPLITS) == cold
    assert replace(warm, parent=replace(first, version="9")).lineage(data("d2"), SPLITS) == told


def test_what_begins_from_a_champion_learns_for_fewer_epochs(school: School) -> None:
    run = school.run(**{"budget.epochs": "9", "start.epochs": "4"})
    assert (run.budget.epochs, replace(run, parent=school.champion("d1")).budget.epochs) == (9, 4)
    short = school.run(**{"budget.epochs": "2", "start.epochs": "4"})
    assert replace(short, parent=school.champion("d1")).budget.epochs == 2
