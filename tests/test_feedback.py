"""What really happened is kept once and for good; what was predicted can be looked back at."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import polars as pl
import pytest

from ray_jobs.artifact import Artifact
from ray_jobs.data.erasure import Erasure
from ray_jobs.errors import StoreError
from ray_jobs.families import family, recipe
from ray_jobs.families.tabular import api as tabular
from ray_jobs.families.tabular.vocabulary import Category, Vocabulary
from ray_jobs.privacy import Aliases, Key
from ray_jobs.serving import feedback, forgetting, journal, outcomes, receipt
from ray_jobs.serving.feedback import FeedbackRequest, Outcomes, Recorder
from ray_jobs.serving.forgetting import Erased, forget
from ray_jobs.serving.journal import Entry, Journal
from ray_jobs.serving.problem import Problem
from ray_jobs.serving.release import Release
from ray_jobs.serving.surface import House, Surface
from ray_jobs.settings import Settings
from ray_jobs.target import Target
from ray_jobs.verb import Logged
from tasks.prepare import ingest
from tasks.run import Run
from tests.family_parts import taught
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
    asking,
    client,
    question,
    released,
    request,
)  # fmt: skip


@pytest.fixture
def app(model: Artifact, tmp_path: Path) -> Surface:
    release, store = released(model), str(tmp_path)
    house = House(
        journal=Journal(store, SERVICE, release.lineage, erased=Erased(store, KEY)),
        recorder=Recorder(store, SERVICE, Erased(store, KEY)),
    )
    return Surface(model, release, KEY, house=house)


@pytest.fixture
def ask(app: Surface) -> Iterator[Ask]:
    with asking(app, **{"x-request-id": "r-1"}) as one:
        yield one


def kept(folder: Path, name: str) -> pl.DataFrame:
    files = sorted((folder / name / SERVICE).rglob("date=*/*.parquet"))
    assert files, "nothing was written"
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def predicted(ask: Ask, candidates: int = 1, **more: Any) -> dict[str, Any]:
    told = ask("POST", "v1/predict", {**request(3, candidates), **more}).json()
    assert isinstance(told, dict)
    return told


def test_an_outcome_is_on_the_store_when_it_is_acknowledged(ask: Ask, tmp_path: Path) -> None:
    told = predicted(ask, 2, learner="Ada Lovelace")
    body = {"prediction_id": told["prediction_id"], "outcomes": [1, 0.5], "time": 1.8e9}
    answered = ask("POST", "v1/feedback", body)
    assert answered.json() == {"recorded": 2, "version": "7", "lineage": "07" * 16}
    rows = kept(tmp_path, "feedback")
    assert rows["truth"].to_list() == [1.0, 0.5]
    alias = KEY.alias("Ada Lovelace")
    first, second = (orjson.loads(row) for row in rows["row"])
    assert first == {
        "learner": alias, "item": "item 0", "skills": "adding", "correct": 1.0, "time": 1.8e9
    }  # fmt: skip
    assert (second["item"], second["correct"]) == ("item 1", 0.5)
    shown = [orjson.loads(p) for p in rows["prediction"]]
    assert shown == pytest.approx([p["probability"] for p in told["predictions"]], abs=1e-6)
    assert set(rows["learner"]) == {KEY.alias("Ada Lovelace")}
    assert "Ada" not in str(rows.to_dicts())


def test_what_did_not_happen_is_left_out(ask: Ask, tmp_path: Path) -> None:
    told = predicted(ask, 3)
    body = {"prediction_id": told["prediction_id"], "outcomes": [None, 1]}
    assert ask("POST", "v1/feedback", body).json()["recorded"] == 1
    assert kept(tmp_path, "feedback")["position"].to_list() == [1]
    assert ask("POST", "v1/feedback", {**body, "outcomes": [None]}).json()["recorded"] == 0


def test_told_twice_it_is_the_same_row_but_for_when_it_came(ask: Ask, tmp_path: Path) -> None:
    body = {"prediction_id": predicted(ask)["prediction_id"], "outcomes": [1]}
    for _ in range(2):
        assert ask("POST", "v1/feedback", body).status_code == 200
    first, second = kept(tmp_path, "feedback").drop("recorded").to_dicts()
    assert first == second


def refusal(told: httpx.Response, status: int) -> str:
    assert told.status_code == status, told.text
    pointer: str = told.json()["errors"][0]["pointer"]
    return pointer


def test_what_cannot_be_is_refused_with_where_and_nothing_is_kept(ask: Ask, tmp_path: Path) -> None:
    good = predicted(ask)["prediction_id"]
    other = "y" if good.endswith("x") else "x"
    state = ask("POST", "v1/mastery", {"history": [], "skills": ["adding"]}).json()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prediction_id": good[:-1] + other, "outcomes": [1]}, "/prediction_id"),
        ({"prediction_id": "none", "outcomes": [1]}, "/prediction_id"),
        ({"prediction_id": state["prediction_id"], "outcomes": [1]}, "/prediction_id"),
        ({"prediction_id": good, "outcomes": [1, 0]}, "/outcomes"),
        ({"prediction_id": good, "outcomes": [2]}, "/outcomes/0"),
        ({"prediction_id": good, "outcomes": ["right"]}, "/outcomes/0"),
        ({"prediction_id": good, "outcomes": []}, "/outcomes"),
        ({"prediction_id": good, "outcomes": [1], "tiem": 1}, "/tiem"),
    ]
    for body, where in wrong:
        assert refusal(ask("POST", "v1/feedback", body), 422) == where
        many = {"instances": [{"prediction_id": good, "outcomes": [1]}, body]}
        assert refusal(ask("POST", "v1/feedback", many), 422) == f"/instances/1{where}"
    assert not (tmp_path / "feedback").exists()


def test_an_id_of_another_service_or_installation_is_refused(
    model: Artifact, ask: Ask, tmp_path: Path
) -> None:
    body = {"prediction_id": predicted(ask)["prediction_id"], "outcomes": [1]}
    release = released(model)
    house = House(recorder=Recorder(str(tmp_path), "geometry"))
    other = Surface(model, type(release)(**{**vars(release), "service": "geometry"}), KEY, SERVICE)
    for key, name in ((KEY, "geometry"), (Key(bytes(32)), SERVICE)):
        at = type(release)(**{**vars(release), "service": name})
        with asking(Surface(model, at, key, SERVICE, house=house)) as elsewhere:
            assert refusal(elsewhere("POST", "v1/feedback", body), 422) == "/prediction_id"
    with asking(other) as without:
        assert without("POST", "v1/feedback", body).status_code == 404


def test_many_who_come_together_are_written_together_and_each_is_told(
    app: Surface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    write = journal.write

    def slow(*given: Any) -> None:
        assert go.wait(10)
        write(*given)

    monkeypatch.setattr(feedback, "write", slow)

    async def story() -> None:
        async with client(app) as http:
            ids = [
                (await http.post("v1/predict", json=request())).json()["prediction_id"]
                for _ in range(20)
            ]
            bodies = [{"prediction_id": id_, "outcomes": [1]} for id_ in ids]
            asked = [asyncio.create_task(http.post("v1/feedback", json=b)) for b in bodies]
            await asyncio.sleep(0.2)
            assert not any(one.done() for one in asked), "told before it was kept"
            go.set()
            assert {(await one).json()["recorded"] for one in asked} == {1}

    asyncio.run(story())
    files = list((tmp_path / "feedback").rglob("*.parquet"))
    assert len(files) <= 3
    assert kept(tmp_path, "feedback")["id"].n_unique() == 20


def test_where_the_store_refuses_the_client_is_told_to_come_again(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StoreError("no space left")

    body = {"prediction_id": predicted(ask)["prediction_id"], "outcomes": [1]}
    with monkeypatch.context() as patched:
        patched.setattr(feedback, "write", full)
        told = ask("POST", "v1/feedback", body)
        assert told.status_code == 503
        assert int(told.headers["retry-after"]) >= 1
    assert ask("POST", "v1/feedback", body).json()["recorded"] == 1


def test_whatever_fails_everybody_who_waits_is_told_and_the_next_are_kept(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("our fault")

    body = {"prediction_id": predicted(ask)["prediction_id"], "outcomes": [1]}
    with monkeypatch.context() as patched:
        patched.setattr(feedback, "write", broken)
        begin = time.monotonic()
        told = ask("POST", "v1/feedback", body)
        assert told.status_code == 500
        assert time.monotonic() - begin < 10
    assert ask("POST", "v1/feedback", body).json()["recorded"] == 1


def test_the_loop_of_requests_makes_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers = []
    whole = pl.DataFrame

    def made(*given: Any, **more: Any) -> pl.DataFrame:
        makers.append(threading.current_thread())
        return whole(*given, **more)

    monkeypatch.setattr(pl, "DataFrame", made)
    row = dict.fromkeys(feedback.SCHEMA)
    asyncio.run(Recorder(str(tmp_path), SERVICE).record([row, row]))
    assert makers
    assert threading.main_thread() not in makers


# What a later version takes.


def told_by(version: str, *names: str, kind: str = "classes") -> tuple[Logged, Outcomes]:
    """What a version that knows these outcomes logs, and takes."""
    category = Category("about", ("a",), (1.0,), 0.0)
    words = Vocabulary(Target(kind, names), 0.0, 1.0, (), (category,))
    logged = tabular.verbs(words)["predict"].logged
    assert logged
    return logged, Outcomes(KEY, SERVICE, version, logged)


def given_out(version: str, predictions: list[Any], target: Target | None) -> str:
    note = receipt.made(
        KEY,
        service=SERVICE,
        version=version,
        learner=None,
        predictions=predictions,
        rows=[{"about": "a"}],
        target=target,
    )
    return receipt.signed(KEY, note)


def kept_of(taker: Outcomes, id_: str, outcome: float | str) -> dict[str, Any]:
    (row,) = taker.rows(FeedbackRequest(prediction_id=id_, outcomes=[outcome]), by="")
    return row


def test_an_outcome_is_one_of_those_that_the_version_knew_which_predicted(tmp_path: Path) -> None:
    first, _ = told_by("1", "fail", "pass", kind="binary")
    second, later = told_by("2", "fail", "merit", "pass")
    third, latest = told_by("3", "fail", "pass", kind="binary")
    rows = [
        kept_of(later, given_out("1", [0.75], first.target), "pass"),
        kept_of(latest, given_out("2", [[0.2, 0.3, 0.5]], second.target), "merit"),
        kept_of(latest, given_out("3", [0.75], third.target), "fail"),
    ]
    told = [(row["version"], row["kind"], row["truth"]) for row in rows]
    assert told == [("1", "binary", 1), ("2", "classes", 1), ("3", "binary", 0)]
    assert orjson.loads(rows[1]["row"]) == {"about": "a", "label": "merit"}
    asyncio.run(Recorder(str(tmp_path), SERVICE).record(rows))
    fared = outcomes.fared(outcomes.gathered(str(tmp_path), SERVICE))
    brier = {one.version: one.figures["brier"].value for one in fared}
    assert brier["1"] == pytest.approx(0.25**2)
    assert brier["3"] == pytest.approx(0.75**2)
    with pytest.raises(Problem, match="expected one of fail, pass"):
        kept_of(later, given_out("1", [0.75], first.target), "merit")


def test_after_a_swap_an_outcome_is_one_of_the_version_that_predicted(tmp_path: Path) -> None:
    model = taught("tabular", family("tabular").baseline().name)
    names = model.vocabulary.target.outcomes
    known = replace(model.vocabulary, target=Target("classes", ("a new one", *names)))
    house = House(recorder=Recorder(str(tmp_path), SERVICE))
    before, after = (
        Surface(
            replace(model, vocabulary=words),
            Release(SERVICE, "tabular", version * 32, "somewhere", "", [], {}, version=version),
            KEY,
            house=house,
        )
        for version, words in (("1", model.vocabulary), ("2", known))
    )
    body = before.verbs["predict"].request.model_json_schema()["examples"][0]
    with asking(before) as one, asking(after) as other:
        id_ = one("POST", "v1/predict", body).json()["prediction_id"]
        for outcome, status in ((names[1], 200), ("a new one", 422)):
            told = {"prediction_id": id_, "outcomes": [outcome]}
            assert other("POST", "v1/feedback", told).status_code == status
    (row,) = kept(tmp_path, "feedback").to_dicts()
    assert (row["version"], row["kind"], row["truth"]) == ("1", "binary", 1.0)


def test_an_id_without_outcomes_is_taken_by_its_own_version_and_refused_by_others() -> None:
    _, own = told_by("1", "fail", "pass", kind="binary")
    _, later = told_by("2", "fail", "merit", "pass")
    _, number = told_by("2", kind="number")
    earlier = given_out("1", [0.75], None)
    assert kept_of(own, earlier, "pass")["truth"] == 1
    assert kept_of(number, earlier, 0.5)["truth"] == 0.5
    with pytest.raises(Problem, match="given out by an earlier Lyceum"):
        kept_of(later, earlier, "pass")


def test_an_id_that_is_given_out_is_taken_back_however_long_the_request(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    long = {"item": "\U0001f600" * 512, "skills": ["\U0001f600" * 512] * 8}
    longest = {**long, "skills": ["\U0001f600" * 512] * 64}
    short = {"item": "i", "skills": []}
    cases = [
        ([long] * 16, 1),
        ([longest, short], 1),
        ([short, longest, short], 1),
        ([short] * 20, 16),
    ]
    for candidates, noted in cases:
        told = ask("POST", "v1/predict", {"history": [], "candidates": candidates}).json()
        id_ = told["prediction_id"]
        assert len(id_) <= receipt.LONGEST
        body = {"prediction_id": id_, "outcomes": [1] * noted}
        assert ask("POST", "v1/feedback", body).json()["recorded"] == noted
    rows = kept(tmp_path, "feedback")
    assert rows["row"].null_count() == 1, "one is too long to learn from"
    log = outcomes.as_log(str(tmp_path), SERVICE, outcomes.gathered(str(tmp_path), SERVICE))
    assert len(Path(log).read_bytes().splitlines()) == len(rows) - 1
    assert app.house.journal
    app.house.journal.flush()
    assert kept(tmp_path, "predictions")["row"].null_count() == 1


def test_no_request_names_a_skill_that_a_log_may_not(ask: Ask) -> None:
    for length, status in ((512, 200), (513, 422)):
        candidate = {"item": "i", "skills": ["s" * length]}
        for body in (
            {"history": [], "candidates": [candidate]},
            {"history": [{**candidate, "correct": 1}], "candidates": [question(0)]},
        ):
            assert ask("POST", "v1/predict", body).status_code == status


# The log of predictions.


def test_each_prediction_is_in_the_log_with_what_led_to_it(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    told = predicted(ask, 2, learner="Ada")
    ask("POST", "v1/mastery", {"history": [], "skills": ["adding"]})
    assert app.house.journal
    app.house.journal.flush()
    rows = kept(tmp_path, "predictions")
    mine = rows.filter(pl.col("row").is_not_null())
    assert len(mine) == 2
    assert [orjson.loads(p) for p in mine["prediction"]] == pytest.approx(
        [p["probability"] for p in told["predictions"]], abs=1e-6
    )
    assert set(rows["request"]) == {"r-1"}
    assert set(mine["learner"]) == {KEY.alias("Ada")}
    assert set(rows["version"]) == {"7"}
    assert set(rows["lineage"]) == {"07" * 16}
    (outcome,) = set(mine["id"])
    ask("POST", "v1/feedback", {"prediction_id": told["prediction_id"], "outcomes": [1]})
    assert kept(tmp_path, "feedback")["id"].to_list() == [outcome], "the two can be joined"


def test_under_pressure_rows_are_dropped_and_counted_rather_than_requests_slowed(
    app: Surface, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.house.journal
    log = app.house.journal
    log.most = 5

    def away(*_: Any) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write", away)
        for _ in range(8):
            predicted(ask)
        log.flush()
        assert (len(log.entries), log.dropped, log.written) == (5, 3, 0)
        predicted(ask)
    log.flush()
    assert (len(log.entries), log.dropped, log.written) == (0, 4, 5)
    assert len(kept(tmp_path, "predictions")) == 5


def test_what_waits_is_bounded_by_its_size_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {"service": SERVICE, "version": "7", "learner": None}
    note = receipt.made(KEY, **said, predictions=[0.5], rows=[{"item": "x" * 1000}])
    log = Journal(str(tmp_path), SERVICE, "l", most_bytes=5_000)

    def away(*_: Any) -> None:
        raise StoreError("away")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "write", away)
            for _ in range(8):
                log.add(Entry(note, "r", "k"))
                log.flush()
        assert len(log.entries) == 5
        log.flush()
    assert (log.written, log.dropped) == (10, 6)


def test_what_waits_is_written_when_a_replica_leaves(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    assert app.house.journal
    app.house.journal.start()
    predicted(ask)
    app.house.journal.stop()
    assert len(kept(tmp_path, "predictions")) == 1


def test_an_alias_is_taken_in_as_the_learner_it_stands_for() -> None:
    names = ["Ada", KEY.alias("Ada"), "~not.an.alias", Key(bytes(32)).alias("Ada"), None]
    rows = pl.DataFrame({"learner": names}, schema={"learner": pl.String})
    taken = Aliases(KEY).replaced(rows, "learner").select("learner", "bucket").rows()
    ada, alias, looks_like, foreign, nobody = taken
    assert ada == alias
    assert ada[0] == KEY.pseudonym("Ada")
    assert looks_like[0] == KEY.pseudonym("~not.an.alias")
    assert foreign[0] != ada[0]
    assert nobody == (None, None)


def test_told_otherwise_later_the_first_outcome_holds_and_the_others_are_counted(
    ask: Ask, tmp_path: Path
) -> None:
    for number in range(30):
        told = predicted(ask, learner=f"learner {number % 12}")
        body = {"prediction_id": told["prediction_id"], "outcomes": [number % 3 % 2]}
        for again in [body, body, {**body, "outcomes": [0.25]}]:
            assert ask("POST", "v1/feedback", again).status_code == 200
    told_ = outcomes.gathered(str(tmp_path), SERVICE)
    assert (len(told_.rows), told_.again, told_.otherwise) == (30, 30, 30)
    (version,) = outcomes.fared(told_)
    assert (version.version, version.outcomes, version.learners) == ("7", 30, 12)
    predictions = np.array([orjson.loads(p) for p in told_.rows["prediction"]])
    brier = float(np.mean((predictions - told_.rows["truth"].to_numpy()) ** 2))
    assert version.figures["brier"].value == pytest.approx(brier)
    assert version.figures["brier"].low < brier < version.figures["brier"].high
    assert "brier" in outcomes.table([version])[0]


def test_what_happened_is_a_log_that_can_be_ingested_and_learners_are_who_they_were(
    ask: Ask, tmp_path: Path
) -> None:
    for number in range(10):
        body = {"learner": f"learner {number % 2}", "time": 1.8e9 + number}
        told = predicted(ask, 2, **body)
        ask("POST", "v1/feedback", {"prediction_id": told["prediction_id"], "outcomes": [1, 0]})
    told_ = outcomes.gathered(str(tmp_path), SERVICE)
    log = outcomes.as_log(str(tmp_path), SERVICE, told_)
    assert outcomes.as_log(str(tmp_path), SERVICE, told_) == log
    run = Run(
        recipe("knowledge").overridden(data=log, service=SERVICE),
        Settings(home=tmp_path / "home", store=str(tmp_path / "store"), key_file=tmp_path / "key"),
    )
    (tmp_path / "key").write_text(base64.b64encode(KEY.secret).decode())
    snapshot, _ = ingest.fn(run)
    rows = snapshot.rows()
    assert len(rows) == 20
    assert set(rows["learner"]) == {KEY.pseudonym(f"learner {n}") for n in range(2)}
    assert set(rows["item"]) == {"item 0", "item 1"}
    assert set(rows["correct"]) == {"1", "0"}


def test_who_is_erased_is_gone_from_what_services_keep(
    app: Surface, ask: Ask, tmp_path: Path
) -> None:
    for name in ("Ada", "Ben"):
        told = predicted(ask, learner=name)
        ask("POST", "v1/feedback", {"prediction_id": told["prediction_id"], "outcomes": [1]})
    assert app.house.journal
    app.house.journal.flush()
    log = outcomes.as_log(str(tmp_path), SERVICE, outcomes.gathered(str(tmp_path), SERVICE))
    assert forget(str(tmp_path), KEY.alias("Ada")) == 2
    for name in ("feedback", "predictions"):
        assert set(kept(tmp_path, name)["learner"]) == {KEY.alias("Ben")}
    assert not Path(log).exists()
    assert forget(str(tmp_path), KEY.alias("Ada")) == 0


def erased(store: Path, learner: str) -> None:
    """All of an erasure; the time between its halves has passed."""
    erasure = Erasure(learner, str(store), KEY)
    erasure.rewrite()
    erasure.remove()


def whose(folder: Path) -> set[str | None]:
    """Who is in what services keep."""
    files = [f for name in ("feedback", "predictions") for f in (folder / name).rglob("*.parquet")]
    return {learner for file in files for learner in pl.read_parquet(file)["learner"]}


def test_of_who_was_erased_nothing_is_written_again(app: Surface, ask: Ask, tmp_path: Path) -> None:
    ids = [predicted(ask, learner=name)["prediction_id"] for name in ("Ada", "Ben")]
    ids.append(predicted(ask)["prediction_id"])
    erased(tmp_path, "Ada")
    for id_ in ids:
        assert ask("POST", "v1/feedback", {"prediction_id": id_, "outcomes": [1]}).is_success
    assert app.house.journal
    app.house.journal.flush()
    assert whose(tmp_path) == {KEY.alias("Ben"), None}
    assert len(kept(tmp_path, "feedback")) == len(kept(tmp_path, "predictions")) == 2
    assert len(list((tmp_path / "feedback").rglob("*.parquet"))) == 2, "not even for a moment"


def test_a_writer_looks_at_who_was_erased_now_and_then_and_not_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pl.DataFrame({"learner": [KEY.alias("Ada"), None]})
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    writer = Erased(str(tmp_path), KEY)
    assert writer.overtaken, "it has not looked yet"
    assert len(writer.others(rows)) == 2
    erased(tmp_path, "Ada")
    clock[0] += forgetting.LOOK_S / 2
    assert len(writer.others(rows)) == 2, "this soon it asks nobody"
    clock[0] += forgetting.LOOK_S
    assert writer.others(rows)["learner"].to_list() == [None]
    clock[0] += forgetting.LOOK_S + 0.1

    def away(_: str) -> dict[str, int]:
        raise StoreError("away")

    monkeypatch.setattr("ray_jobs.store.sizes", away)
    with pytest.raises(StoreError, match="away"):
        writer.others(rows)


def test_what_takes_so_long_to_write_that_an_erasure_missed_it_is_taken_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    put = journal._put

    def slow(uri: str, rows: pl.DataFrame) -> None:
        if gone:
            erased(tmp_path, gone.pop())
            clock[0] += 2 * forgetting.KNOWN_S
        put(uri, rows)

    gone = ["Ben", "Ada"]
    monkeypatch.setattr(journal, "_put", slow)
    rows = pl.DataFrame({"learner": [KEY.alias(name) for name in ("Ada", "Ben", "Cleo")]})
    journal.write(str(tmp_path), "feedback", SERVICE, rows, Erased(str(tmp_path), KEY))
    assert whose(tmp_path) == {KEY.alias("Cleo")}
