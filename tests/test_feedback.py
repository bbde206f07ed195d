"""What really happened is kept once and for good, and can be learnt from."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import polars as pl
import pytest

from ray_jobs.artifact import Artifact
from ray_jobs.errors import StoreError
from ray_jobs.families import recipe
from ray_jobs.privacy import Aliases, Key
from ray_jobs.serving import feedback, journal, outcomes
from ray_jobs.serving.feedback import Recorder
from ray_jobs.serving.surface import House, Surface
from ray_jobs.settings import Settings
from tasks.prepare import ingest
from tasks.run import Run
from tests.feedback_parts import kept, predicted
from tests.surface_parts import (
    KEY,
    SERVICE,
    Ask,
    asking,
    client,
    released,
    request,
)  # fmt: skip


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
