"""A search's memory: what is next, what a kill leaves, and who is stopped, by events alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import store
from ray_jobs.errors import AwayError
from ray_jobs.families import recipe
from ray_jobs.recipe import Budget, Resources
from ray_jobs.training import events
from ray_jobs.training.events import Event
from ray_jobs.tuning import trials
from ray_jobs.tuning.asha import Rungs
from ray_jobs.tuning.job import SearchJob
from ray_jobs.tuning.notebook import Notebook
from ray_jobs.tuning.space import Range, as_json
from ray_jobs.tuning.suggest import suggested
from ray_jobs.tuning.trials import FAILED, FINISHED, STOPPED, Trial, ranked
from tests.tuning_parts import SPACE, begun, searched, searching, tells

GOOD, BAD = [0.6, 0.5, 0.4, 0.35, 0.32, 0.31], [0.9, 0.8]
PLAN = recipe("knowledge").overridden(**{"spec.width": "16", "spec.dropout": "0.2"})


def suggestions(known: list[Trial], number: int, seed: int = 0) -> dict[str, Any]:
    return suggested(SPACE, PLAN, known, number=number, trials=20, seed=seed)


ends = st.sampled_from([FINISHED, STOPPED, FAILED, ""])
losses = st.lists(st.floats(0.1, 2.0), max_size=6)


@st.composite
def memories(draw: st.DrawFn) -> list[Trial]:
    """Trials as they may be known: with any end, in the midst, or only just begun."""
    count = draw(st.integers(0, 8))
    found = []
    for number in range(1, count + 1):
        tried = {
            "spec.width": draw(st.sampled_from([8, 16, 32])),
            "spec.dropout": draw(st.floats(0, 0.6)),
            "budget.learning_rate": draw(st.floats(1e-3, 1e-1)),
        }
        told = dict(enumerate(draw(losses), start=1))
        end = draw(ends) if told else draw(st.sampled_from([FAILED, ""]))
        found.append(Trial(number, tried, told, end))
    return found


@settings(max_examples=25, deadline=None)
@given(memories(), st.integers(0, 2**31 - 1))
def test_a_suggestion_follows_from_seed_number_and_what_is_known(
    known: list[Trial], seed: int
) -> None:
    number = len(known) + 1
    first = suggestions(known, number, seed)
    assert suggestions([replace(t) for t in known], number, seed) == first
    assert set(first) == set(SPACE)
    assert all(SPACE[key].holds(value) for key, value in first.items())


def test_another_seed_or_number_suggests_something_else() -> None:
    several = [suggestions([], number, seed) for number in (2, 3, 4) for seed in (0, 1)]
    assert len({str(one) for one in several}) == len(several)


def test_the_first_trial_is_the_recipe_itself_where_the_space_has_it() -> None:
    own = {"spec.width": 16, "spec.dropout": 0.2, "budget.learning_rate": 5e-3}
    assert suggestions([], 1) == own
    elsewhere = {**SPACE, "spec.dropout": Range(0.4, 0.6)}
    other = suggested(elsewhere, PLAN, [], number=1, trials=20, seed=0)
    assert other != own
    assert elsewhere["spec.dropout"].holds(other["spec.dropout"])


def test_once_enough_is_known_suggestions_come_from_where_trials_did_well() -> None:
    known = [
        Trial(n, {**suggestions([], n), "spec.dropout": 0.06 * (n % 10)}, end=FINISHED)
        for n in range(1, 31)
    ]
    known = [replace(t, losses={1: abs(t.settings["spec.dropout"] - 0.12)}) for t in known]
    drawn = [suggestions(known, n)["spec.dropout"] for n in range(31, 51)]
    assert sum(abs(value - 0.12) < 0.12 for value in drawn) > 12


def test_who_was_trained_to_the_end_counts_more_than_who_was_stopped_with_a_better_figure() -> None:
    fates = {0.1: (FINISHED, 0.5), 0.5: (STOPPED, 0.3)}  # by dropout
    known = [
        Trial(n, {**suggestions([], n), "spec.dropout": dropout}, {1: loss}, end)
        for n, (dropout, (end, loss)) in enumerate([*fates.items()] * 12, start=1)
    ]
    drawn = [suggestions(known, n)["spec.dropout"] for n in range(31, 51)]
    assert sum(value < 0.3 for value in drawn) > 15


@pytest.fixture
def job(tmp_path: Path) -> SearchJob:
    return searching(tmp_path)


def test_a_search_gives_out_as_many_trials_as_were_asked_for(job: SearchJob) -> None:
    searched(job, dict.fromkeys(range(6), GOOD))
    found = trials.known(job)
    assert [t.number for t in found] == list(range(1, 7))
    assert {t.end for t in found} == {FINISHED}
    again = Notebook(job, attempt=2)
    assert again.is_full
    assert again.next() is None
    assert trials.known(job) == found


def test_a_trial_is_told_by_how_it_ended(job: SearchJob) -> None:
    notebook = Notebook(job, attempt=1)
    for told in (GOOD, BAD, []):
        tells(job, begun(notebook), told)
    events.append(job.trial_events(3), Event("failed", 1, detail={"error": "loss is nan"}))
    for number in (1, 2, 3):
        notebook.ended(number)
    good, bad, failed = trials.known(job)
    assert (good.end, good.loss, good.best_epoch, good.epochs) == (FINISHED, 0.31, 6, 6)
    assert (bad.end, bad.loss, bad.best_epoch, bad.epochs) == (STOPPED, 0.8, 2, 2)
    assert (failed.end, failed.loss, failed.error) == (FAILED, None, "loss is nan")


def test_what_a_kill_left_is_gone_on_with_before_anything_new(job: SearchJob) -> None:
    notebook = Notebook(job, attempt=1)
    for told in (GOOD, GOOD[:3], []):
        tells(job, begun(notebook), told)
    notebook.ended(1)
    before = {t.number: t.settings for t in trials.known(job)}
    again = Notebook(job, attempt=2)
    assert again.left == 5
    given = [again.next() for _ in range(5)]
    numbers = [one[0] for one in given if one]
    assert numbers == [2, 3, 4, 5, 6]
    assert again.next() is None
    assert {t.number: t.settings for t in trials.known(job) if t.number < 4} == before
    assert Notebook(job, attempt=3).left == 5, "none of them has ended"


def test_a_kill_changes_no_suggestion(tmp_path: Path) -> None:
    whole, cut = searching(tmp_path / "whole"), searching(tmp_path / "cut")
    plan = {n: [1.0 / n, 0.5 / n, *GOOD[2:]] for n in range(1, 7)}
    searched(whole, plan)
    for number, told in plan.items():
        notebook = Notebook(cut, attempt=number)  # a process of its own
        assert begun(notebook) == number
        tells(cut, number, told)
        notebook.ended(number)
    assert [t.settings for t in trials.known(cut)] == [t.settings for t in trials.known(whole)]


def test_a_trial_whose_last_epoch_was_told_before_the_kill_has_finished(job: SearchJob) -> None:
    tells(job, begun(Notebook(job, attempt=1)), GOOD)
    Path(job.folder(1), "checkpoints").mkdir()
    assert begun(Notebook(job, attempt=2)) == 2
    assert trials.known(job)[0].end == FINISHED
    assert not Path(job.folder(1), "checkpoints").exists(), "nobody goes on from them"


def test_an_epoch_that_was_done_twice_counts_once(job: SearchJob) -> None:
    number = begun(Notebook(job, attempt=1))
    tells(job, number, GOOD[:2])
    figures = {"validation_loss": 0.45, "seconds": 1.0}
    events.append(job.trial_events(number), Event("epoch", 2, 2, figures))
    (trial,) = trials.known(job)
    assert (trial.losses, trial.seconds) == ({1: 0.6, 2: 0.45}, 2.0)


def test_what_a_worker_says_after_its_trial_has_ended_is_nothing_to_anybody(
    job: SearchJob,
) -> None:
    notebook, follower = Notebook(job, attempt=1), job.follower()
    tells(job, begun(notebook), BAD)
    notebook.ended(1)
    before = trials.known(job)
    late = Event("epoch", 1, 3, {"validation_loss": 0.1})
    again = Event("ended", 1, 3, detail={"end": FINISHED})
    for event in (late, again):
        events.append(job.trial_events(1), event)
    assert trials.known(job) == before
    assert [e.kind for e in follower.poll()] == ["trial", "started", "epoch", "epoch", "ended"]
    assert follower.poll() == []


def test_settings_that_do_not_go_together_fail_alone(tmp_path: Path) -> None:
    spec = {
        "name": "attention", "width": 64, "layers": 1, "heads": 4, "block": 8, "neighbours": 0,
        "dropout": 0.1, "blank": 0.1,
    }  # fmt: skip
    space = as_json({"spec.width": Range(64, 67, whole=True)})
    job = searching(tmp_path, spec=spec, space=space, trials=8)
    notebook, given = Notebook(job, attempt=1), []
    while (one := notebook.next()) is not None:
        given.append(one[1].spec["width"])
    found = trials.known(job)
    assert len(found) == 8
    assert 0 < len(given) < 8, "some go together, some do not"
    assert set(given) == {64}
    refused = [t for t in found if t.end == FAILED]
    assert len(refused) == 8 - len(given)
    assert all("multiple of heads" in t.error for t in refused)


def test_a_trial_whose_workers_die_says_what_they_said(job: SearchJob) -> None:
    notebook = Notebook(job, attempt=1)
    tells(job, begun(notebook), GOOD[:1])
    notebook.lost(1)
    events.append(job.trial_events(begun(notebook)), Event("failed", 1, detail={"error": "oops"}))
    notebook.lost(2)
    assert [(t.end, t.error) for t in trials.known(job)] == [
        (FAILED, "its workers died, and none said why"),
        (FAILED, "oops"),
    ]


def told_to(rungs: Rungs, plan: dict[int, list[float]], begin: float = 0.0) -> dict[int, int]:
    """Each epoch of all trials, then the next: whom that stops, and when."""
    return rungs.replay(
        (number, Event("epoch", 1, step, {"validation_loss": loss}, time=begin + step * 100 + n))
        for n, (number, losses) in enumerate(plan.items())
        for step, loss in enumerate(losses, start=1)
    )


def test_the_poorer_ones_are_stopped_and_not_before_a_fifth_of_the_epochs() -> None:
    plan = {n: [0.1 * n - 0.01 * step for step in range(2)] for n in range(1, 8)}
    assert set(told_to(Rungs(10), plan)) == set(range(2, 8))
    assert set(told_to(Rungs(10), plan).values()) == {2}
    assert told_to(Rungs(60), plan) == {}


def test_who_has_been_better_before_is_judged_by_that() -> None:
    assert told_to(Rungs(10), {1: [0.5, 0.4], 2: [0.3, 0.9], 3: [0.35, 0.36]}) == {3: 2}


def test_told_again_after_a_kill_the_rungs_decide_as_they_would_have() -> None:
    before = {1: [0.5, 0.4], 2: [0.6, 0.5], 3: [0.3, 0.2]}
    later = {4: [0.9, 0.7], 5: [0.2, 0.1], 6: [0.8, 0.45]}
    at_once, again = Rungs(10), Rungs(10)
    first = told_to(at_once, before)
    assert told_to(again, before) == first == {2: 2}
    assert told_to(at_once, later, begin=1e6) == told_to(again, later, begin=1e6) == {4: 2, 6: 2}


def test_a_trial_that_goes_on_after_a_kill_is_not_judged_twice_at_one_rung() -> None:
    rungs = Rungs(10)
    told_to(rungs, {1: [0.5, 0.4], 2: [0.3, 0.2], 3: [0.2, 0.1]})
    last = (1, Event("epoch", 2, 2, {"validation_loss": 0.4}, time=1e9))
    assert rungs.replay([last]) == {}


def test_who_was_told_to_stop_and_killed_before_that_was_noted_stays_stopped(
    job: SearchJob,
) -> None:
    notebook = Notebook(job, attempt=1)
    for told in (GOOD, BAD):
        tells(job, begun(notebook), told)
    notebook.ended(1)
    again = Notebook(job, attempt=2)
    again.stopped_at(2, 1)
    assert trials.known(job)[1].end == "", "it came further since"
    again.stopped_at(2, 2)
    assert trials.known(job)[1].end == STOPPED
    assert begun(again) == 3


def test_the_best_is_one_that_was_trained_to_its_end() -> None:
    full = Trial(1, {}, {1: 0.5, 2: 0.4}, FINISHED)
    worse = Trial(2, {}, {1: 0.6, 2: 0.45}, FINISHED)
    stopped = Trial(3, {}, {1: 0.3}, STOPPED)
    failed = Trial(4, {}, {1: 0.1}, FAILED)
    nothing = Trial(5, {}, {}, STOPPED)
    assert ranked([nothing, failed, stopped, worse, full]) == [full, worse, stopped]


def test_who_follows_hears_of_each_trial_before_what_it_tells_and_of_each_epoch_once(
    job: SearchJob,
) -> None:
    follower = job.follower()
    assert follower.poll() == []
    notebook = Notebook(job, attempt=1)
    tells(job, begun(notebook), GOOD[:2])
    first = follower.poll()
    tells(job, 1, GOOD[2:], attempt=2)
    events.append(job.trial_events(1), Event("epoch", 2, 6, {"validation_loss": 0.3}))
    notebook.ended(1)
    events.append(job.events, Event("finished", 1, 1, detail={"digest": "d"}))
    rest = follower.poll()
    told = [(e.kind, e.step, e.detail.get("trial")) for e in [*first, *rest]]
    epochs = [("epoch", step, 1) for step in range(1, 7)]
    assert told == [
        ("trial", 1, None), ("started", 0, 1), *epochs[:2], ("finished", 1, None),
        ("started", 2, 1), *epochs[2:], ("ended", 6, 1),
    ]  # fmt: skip
    assert follower.poll() == []


def test_who_follows_loses_nothing_where_the_storage_goes_away_between_two_trials(
    job: SearchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, notebook, read = job.follower(), Notebook(job, attempt=1), store.read_bytes
    for _ in range(2):
        tells(job, begun(notebook), GOOD[:1])
    away = [job.trial_events(2)]

    def asked(uri: str) -> bytes:
        if uri in away:
            raise AwayError(f"{away.pop()} does not answer")
        return read(uri)

    monkeypatch.setattr(store, "read_bytes", asked)
    with pytest.raises(AwayError):
        follower.poll()
    told = [(e.kind, e.step, e.detail.get("trial")) for e in follower.poll()]
    trial = [("started", 0), ("epoch", 1)]
    assert told == [
        ("trial", 1, None), ("trial", 2, None), *((*e, 1) for e in trial), *((*e, 2) for e in trial)
    ]  # fmt: skip
    assert follower.poll() == []


def test_a_search_comes_back_from_its_record(job: SearchJob) -> None:
    assert SearchJob.load(job.save()) == job
    own = job.trial(4, {"spec.width": 32, "spec.dropout": 0.1, "budget.learning_rate": 0.02})
    assert (own.spec["width"], own.budget.learning_rate, own.workers) == (32, 0.02, 1)
    assert own.spec["blank"] == 0.1
    assert own.budget == replace(job.budget, learning_rate=0.02)
    assert job.trial(5, {}).output != own.output


@pytest.mark.parametrize(
    ("space", "epochs"),
    [({}, 6), ({"budget.epochs": Range(2, 9, whole=True)}, 9)],
)
def test_rungs_reach_as_far_as_the_longest_trial(
    space: dict[str, Any], epochs: int, tmp_path: Path
) -> None:
    job = searching(tmp_path, space=as_json(space))
    assert job.epochs == epochs
    assert searching(tmp_path, spec={"name": "rasch", "prior": 1.0, "rounds": 1}).epochs == 1
    assert (job.budget, job.resources) == (Budget(epochs=6, batch_cost=512), Resources())
