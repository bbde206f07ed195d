"""Who may call a service: keys on the store, at its door, within their limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from ray_jobs.errors import UsageError
from ray_jobs.privacy import Key
from ray_jobs.serving import keys, limits
from ray_jobs.serving.asgi import Call
from ray_jobs.serving.door import Door
from ray_jobs.serving.keys import ApiKey, Keyring
from ray_jobs.serving.limits import Ledger, Limits
from ray_jobs.serving.problem import Problem

SECRET = Key(bytes(range(32)))
DAY_S = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def door(store: Path, clock: Callable[[], float] = time.time, service: str = "algebra") -> Door:
    ring = Keyring(str(store), clock)
    ring.refresh()
    return Door(service, SECRET, ring, limits.alone(), clock)


def admitted(at: Door, text: str | None, action: str = "predict") -> str:
    headers = {} if text is None else {b"authorization": text.encode("latin-1")}
    return asyncio.run(at.admit(Call("POST", "v1/predict", b"", headers), action))


def refused(at: Door, text: str | None, action: str = "predict") -> Problem:
    with pytest.raises(Problem) as caught:
        admitted(at, text, action)
    return caught.value


def test_a_key_lets_in_whoever_has_it_and_is_kept_nowhere(tmp_path: Path) -> None:
    key, text = keys.create(str(tmp_path), "the app of class 5", ["algebra"])
    assert admitted(door(tmp_path), f"Bearer {text}") == key.id
    assert admitted(door(tmp_path), f"bearer  {text} ") == key.id
    secret = text.split("_", 2)[2]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret not in path.read_text()


def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(tmp_path: Path) -> None:
    clock = Clock()
    key, good = keys.create(str(tmp_path), "app", ["algebra"])
    _, short = keys.create(str(tmp_path), "short", ["algebra"], days=1)
    revoked, text = keys.create(str(tmp_path), "gone", ["algebra"])
    keys.revoke(str(tmp_path), revoked.id)
    clock.now += 2 * DAY_S
    at = door(tmp_path, clock)
    secret = good.split("_", 2)[2]
    wrong = [
        *(None, "", "Bearer", "Bearer ", "Bearer é", "Bearer lyc__", "Bearer lyo__"),
        *(good, f"Basic {good}", f"Bearer {good}x", f"Bearer {good[:-1]}"),
        *(f"Bearer lyc_{key.id}_", f"Bearer lyc_{'0' * 12}_{secret}", f"Bearer lyx{good[3:]}"),
        *(f"Bearer {short}", f"Bearer {text}", "Bearer lyo_9_9"),
    ]
    told = {(p.status, p.body(), p.headers) for p in (refused(at, text) for text in wrong)}
    assert len(told) == 1
    assert next(iter(told))[0] == 401
    assert admitted(at, f"Bearer {good}") == key.id


def test_a_key_does_only_what_it_was_made_for(tmp_path: Path) -> None:
    _, narrow = keys.create(str(tmp_path), "reader", ["algebra"], actions=["read"])
    _, wide = keys.create(str(tmp_path), "all", ["*"])
    at, other = door(tmp_path), door(tmp_path, service="geometry")
    assert admitted(at, f"Bearer {narrow}", "read")
    assert refused(at, f"Bearer {narrow}", "predict").status == 403
    assert refused(other, f"Bearer {narrow}", "read").status == 403
    assert admitted(other, f"Bearer {wide}", "feedback")


def test_a_key_made_or_revoked_is_known_to_a_replica_within_two_seconds(tmp_path: Path) -> None:
    at = door(tmp_path)
    at.ring.start()
    try:
        key, text = keys.create(str(tmp_path), "app", ["algebra"])
        assert within(2.0, lambda: at.ring.find(text) is not None)
        keys.revoke(str(tmp_path), key.id)
        assert within(2.0, lambda: at.ring.find(text) is None)
    finally:
        at.ring.stop()


def within(limit_s: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_while_the_store_is_away_the_keys_known_before_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = keys.create(str(tmp_path), "app", ["algebra"])
    monkeypatch.setattr(keys, "POLL_S", 0.01)
    ring = Keyring(str(tmp_path))
    ring.start()
    try:
        with monkeypatch.context() as patched:
            patched.setattr("ray_jobs.store.sizes", _away)
            assert within(5, lambda: "those known before hold" in caplog.text)
            assert ring.find(text) is not None
            assert ring.age_s > 0
        _, new = keys.create(str(tmp_path), "later", ["algebra"])
        assert within(5, lambda: ring.find(new) is not None)
        assert caplog.text.count("those known before hold") == 1, "said once"
    finally:
        ring.stop()


def _away(_uri: str) -> dict[str, int]:
    raise OSError("no route to host")


def test_the_list_tells_every_key_and_no_secret(tmp_path: Path) -> None:
    assert keys.listed(str(tmp_path)) == []
    first, text = keys.create(str(tmp_path), "first", ["algebra"], days=90, per_second=5)
    second, _ = keys.create(str(tmp_path), "second", ["*"])
    keys.revoke(str(tmp_path), first.id)
    keys.revoke(str(tmp_path), first.id)
    assert keys.listed(str(tmp_path)) == [(first, True), (second, False)]
    assert first.burst == 5
    assert text.split("_", 2)[2] not in repr(keys.listed(str(tmp_path)))


@pytest.mark.parametrize(
    "how",
    [
        {"services": []},
        {"actions": []},
        {"actions": ["predcit"]},
        {"name": " "},
        {"days": -1},
        {"per_second": -1},
        {"per_second": float("nan")},
        {"per_second": float("inf")},
        {"burst": 5},
        {"per_second": 1, "burst": 0.5},
    ],
)
def test_a_key_that_lets_nobody_in_is_refused(tmp_path: Path, how: dict[str, object]) -> None:
    asked: dict[str, object] = {"name": "app", "services": ["algebra"], **how}
    with pytest.raises(UsageError):
        keys.create(str(tmp_path), **asked)  # type: ignore[arg-type]
    assert keys.listed(str(tmp_path)) == []


def test_a_key_nobody_made_cannot_be_revoked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lyceum keys list"):
        keys.revoke(str(tmp_path), "0" * 12)


def test_a_whole_key_is_spoken_of_by_its_id(tmp_path: Path) -> None:
    made, text = keys.create(str(tmp_path), "app", ["algebra"])
    assert keys.id_of(text) == keys.id_of(f" {made.id}\n") == made.id
    with pytest.raises(UsageError) as caught:
        keys.revoke(str(tmp_path), "secret" * 10)
    assert "secret" * 3 not in str(caught.value)


def test_a_file_that_is_no_key_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "000000000000.json").write_bytes(b"{}")
    (folder / "000000000001.json").write_bytes(b"no JSON")
    _, text = keys.create(str(tmp_path), "app", ["algebra"])
    (newer,) = (path for path in folder.iterdir() if not path.name.startswith("00000000000"))
    newer.write_bytes(orjson.dumps({**orjson.loads(newer.read_bytes()), "of_a_later": "Lyceum"}))
    ring = Keyring(str(tmp_path))
    ring.refresh()
    ring.refresh()
    assert ring.find(text)
    assert len([r for r in caplog.records if "is no key" in r.getMessage()]) == 2


def test_commands_of_the_installation_come_in_for_some_minutes(tmp_path: Path) -> None:
    clock = Clock()
    at = door(tmp_path, clock)
    token = keys.operator_token(SECRET)
    for action in keys.ACTIONS:
        assert admitted(at, f"Bearer {token}", action) == keys.OPERATOR
    foreign = keys.operator_token(Key(bytes(32)))
    assert refused(at, f"Bearer {foreign}").status == 401
    assert refused(at, f"Bearer {token[:4]}9{token[5:]}").status == 401
    clock.now += keys.FRESH_S + 1
    assert refused(at, f"Bearer {token}").status == 401


# Limits.


def key(per_second: float, burst: float = 0.0, id_: str = "a") -> ApiKey:
    return ApiKey(id_, "app", "", ("*",), keys.ACTIONS, 0.0, None, per_second, burst or per_second)


class Shop:
    """Replicas that spend from one ledger, under a clock that stands still."""

    def __init__(self, replicas: int) -> None:
        self.clock = Clock()
        self.ledger = Ledger(self.clock)
        self.asked = 0
        self.replicas = [Limits(self.take, self.clock) for _ in range(replicas)]
        self.runner = asyncio.Runner()

    async def take(
        self, id_: str, per_second: float, burst: float, wanted: int
    ) -> tuple[int, float]:
        self.asked += 1
        await asyncio.sleep(0)
        return self.ledger.take(id_, per_second, burst, wanted)

    def served(self, one: ApiKey, times: int) -> int:
        """How many of so many requests, spread over the replicas at one moment, are let in."""

        async def spent(replica: Limits) -> bool:
            try:
                await replica.spend(one)
            except Problem:
                return False
            return True

        async def all_of_them() -> int:
            chosen = [self.replicas[i % len(self.replicas)] for i in range(times)]
            return sum(await asyncio.gather(*map(spent, chosen)))

        return self.runner.run(all_of_them())


@pytest.fixture
def opened() -> Iterator[Callable[[int], Shop]]:
    shops: list[Shop] = []

    def made(replicas: int) -> Shop:
        shops.append(Shop(replicas))
        return shops[-1]

    yield made
    for shop in shops:
        shop.runner.close()


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_key_gets_what_its_limit_says_from_all_replicas_together(
    replicas: int, opened: Callable[[int], Shop]
) -> None:
    shop, one = opened(replicas), key(100)
    assert shop.served(one, 300) == 100, "its burst"
    total = 0
    for _ in range(50):  # five seconds
        shop.clock.now += 0.1
        total += shop.served(one, 30)
    assert total == pytest.approx(500, abs=1)


def test_a_key_over_its_limit_takes_nothing_from_another(opened: Callable[[int], Shop]) -> None:
    shop = opened(2)
    assert shop.served(key(10), 1000) == 10
    assert shop.served(key(10, id_="b"), 10) == 10
    assert shop.served(key(0, id_="c"), 1000) == 1000, "without a limit"


def test_who_is_refused_is_told_when_to_ask_again_and_is_let_in_then(
    opened: Callable[[int], Shop],
) -> None:
    shop, one = opened(1), key(0.5, 1)
    shop.runner.run(shop.replicas[0].spend(one))
    with pytest.raises(Problem) as caught:
        shop.runner.run(shop.replicas[0].spend(one))
    assert caught.value.status == 429
    assert dict(caught.value.headers)[b"retry-after"] == b"2"
    shop.clock.now += 2
    shop.runner.run(shop.replicas[0].spend(one))


def test_the_ledger_is_asked_now_and_then_and_not_each_time(opened: Callable[[int], Shop]) -> None:
    shop, one = opened(1), key(1000)
    assert shop.served(one, 1000) == 1000
    assert shop.asked <= 11
    asked = shop.asked
    assert shop.served(one, 1000) == 0
    assert shop.asked == asked + 1, "a refusal is remembered"


def test_what_a_replica_took_and_did_not_spend_is_void_after_a_while(
    opened: Callable[[int], Shop],
) -> None:
    shop, one = opened(1), key(100)
    assert shop.served(one, 1) == 1
    shop.clock.now += 3600
    assert shop.served(one, 1000) == 100
