"""The report of a run: what a script reads from its JSON, and a person from its page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ray_jobs.families.knowledge.api import VERBS
from ray_jobs.intervals import Interval
from tasks.gate import Check, Verdict
from tasks.progress import Progress
from tasks.report import Outcome, document, markdown
from tests.stages_parts import Told, in_process, outcome_of, planned, school, tell

VERDICT = Verdict([Check("baseline", True, "auc +0.0200"), Check("size", False, "9 MB; at most 1")])
ENDPOINT = "http://here:8000/algebra"
HOLDS = {
    "": "service family recipe spec protocol version lineage data metrics slices baseline champion "
    "start cold_start gate timings_s cached train endpoint",
    "data": "digest rows kept quarantined merged repeats",
    "baseline": "spec metrics difference",
    "champion": "version lineage metrics difference",
    "gate": "passed reasons",
    "start": "version lineage why",
    "train": "workers rows_per_s epochs seconds",
}  # as the design promises, and as the summary of the command line reads


@pytest.fixture(scope="module")
def tolds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, Told]]:
    """A candidate, and the champion it was compared with."""
    folder = tmp_path_factory.mktemp("school")
    school(folder)
    with in_process():
        champion = tell(planned(folder, **{"spec.prior": "30"}))
        yield tell(planned(folder), replace(champion.release, version="7")), champion


@pytest.fixture
def outcome(tolds: tuple[Told, Told]) -> Outcome:
    told, champion = tolds
    return outcome_of(
        told,
        verdict=VERDICT,
        champion=replace(champion.release, version="7"),
        version="8",
        endpoint=ENDPOINT,
        progress=Progress(1, {"ingest": 0.5, "train": 2.25}, ["ingest"]),
        links={"MLflow run": "http://here:5000/#/runs/1", "service": f"{ENDPOINT}/docs"},
    )


def undefined(outcome: Outcome) -> Outcome:
    """The same, had the test split held one outcome only."""
    nothing = Interval(math.nan, math.nan, math.nan)
    candidate = outcome.report.candidate
    candidate = replace(candidate, metrics={**candidate.metrics, "auc": nothing})
    return replace(outcome, report=replace(outcome.report, candidate=candidate))


def test_a_document_holds_what_scripts_were_promised(outcome: Outcome) -> None:
    told = document(outcome)
    for part, names in HOLDS.items():
        assert set(names.split()) <= set(told[part] if part else told), part
    assert (told["version"], told["lineage"]) == ("8", outcome.lineage)
    assert told["spec"] == {"name": "rasch", "prior": 1.0, "rounds": 3}
    assert (told["timings_s"], told["cached"]) == ({"ingest": 0.5, "train": 2.25}, ["ingest"])
    assert told["train"]["rows_per_s"] == outcome.model.rows_per_s
    assert told["endpoint"] == ENDPOINT


def test_a_document_is_plain_json_with_undefined_figures_as_null(outcome: Outcome) -> None:
    told = document(undefined(outcome))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["metrics"]["auc"] == {"value": None, "low": None, "high": None}
    small = [p["metrics"]["auc"]["value"] for s in told["slices"].values() for p in s.values()]
    assert None in small
    assert any(isinstance(value, float) for value in small)


def test_every_row_is_in_one_place(outcome: Outcome, tolds: tuple[Told, Told]) -> None:
    data = document(outcome)["data"]
    bad = sum(data["quarantined"].values())
    assert data["rows"] == data["kept"] + bad + data["merged"] + data["repeats"]
    assert data["kept"] == sum(data["split"]["rows"].values()) + data["split"]["held_back"]
    assert min(bad, data["repeats"], *data["split"]["rows"].values()) > 0
    assert data["rows"] == tolds[0].snapshot.read


@pytest.mark.parametrize("who", ["baseline", "champion"])
def test_a_rival_is_told_with_its_own_figures_and_the_candidates_gain(
    outcome: Outcome, who: str
) -> None:
    told = document(outcome)
    for name, figure in told["metrics"].items():
        rival, gain = told[who]["metrics"][name], told[who]["difference"][name]
        assert figure["value"] - rival["value"] == pytest.approx(gain["value"])
    if who == "champion":
        assert told[who]["difference"]["auc"]["value"] != 0
        assert told[who]["version"] == "7"
        assert told[who]["lineage"] != outcome.lineage


def test_a_champion_that_is_the_candidate_itself_is_no_rival(outcome: Outcome) -> None:
    """As when the same recipe runs again: nothing was compared, gated or registered."""
    alone = replace(
        outcome.report,
        others={"baseline": outcome.report.others["baseline"]},
        differences={"baseline": outcome.report.differences["baseline"]},
    )
    told = document(replace(outcome, report=alone, verdict=None))
    assert told["champion"] is None
    assert told["gate"]["passed"]
    assert told["gate"]["reasons"] == ["skipped: the candidate is the champion already"]
    assert document(replace(outcome, champion=None))["champion"] is None


def test_the_request_of_a_report_is_short_and_one_that_the_service_takes(outcome: Outcome) -> None:
    request = document(outcome)["request"]
    sizes = {len(str(case["request"])) for case in outcome.report.golden}
    assert min(sizes) < len(str(request)) < max(sizes)  # the shortest has no history
    assert request["history"]
    VERBS["predict"].request.model_validate(request)
    new = [case for case in outcome.report.golden if not case["request"]["history"]]
    told = document(replace(outcome, report=replace(outcome.report, golden=new)))
    assert told["request"] == new[0]["request"]


def rows(page: str) -> list[list[str]]:
    """The cells of a page's table."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_page_shows_every_model_by_its_figures(outcome: Outcome) -> None:
    page = markdown(outcome)
    header, rule, *body = rows(page)
    assert header == ["figure", "candidate", "baseline", "champion"]
    assert {len(row) for row in (rule, *body)} == {4}
    told = document(outcome)
    models = [told, told["baseline"], told["champion"]]
    for name, *cells in body:
        figures = [model["metrics"][name.replace(" ", "_")] for model in models]
        assert cells == ["{value:.4f} [{low:.4f}, {high:.4f}]".format(**f) for f in figures]
    assert len(body) == len(told["metrics"])


def test_a_page_tells_every_reason_link_and_row(outcome: Outcome) -> None:
    page = markdown(outcome)
    for line in (
        "# knowledge-smoke, version 8",
        f"Live at [{ENDPOINT}]({ENDPOINT}/docs).",
        *(f"- {reason}" for reason in VERDICT.reasons),
        *(f"- [{name}]({url})" for name, url in outcome.links.items()),
        f"Lineage `{outcome.lineage}`",
    ):
        assert line in page.splitlines()
    data: dict[str, Any] = document(outcome)["data"]
    accounts = (
        "{rows:,} rows read = {kept:,} kept + {bad} quarantined + {merged} merged + {repeats} r"
    )
    assert accounts.format(**data, bad=sum(data["quarantined"].values())) in page


def test_a_page_of_what_is_not_live_and_not_defined_says_no_more(outcome: Outcome) -> None:
    nowhere = undefined(replace(outcome, endpoint=None, links={}, verdict=None))
    assert document(nowhere)["endpoint"] is None
    page = markdown(nowhere)
    assert "Live" not in page
    assert "http" not in page
    assert "nan" not in page
    assert "- skipped: the candidate is the champion already" in page
    assert next(cells for cells in rows(page) if cells[0] == "auc")[1] == "–"
