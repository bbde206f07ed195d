"""Packed examples come back as they were, once for a node, and never half."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ray_jobs import node_cache
from ray_jobs.data.tables import parts, read_parquet
from ray_jobs.errors import StoreError
from ray_jobs.training import shards, splits
from ray_jobs.training.shards import Shards
from ray_jobs.training.splits import Splits
from tests.bench import memory as bench


@dataclasses.dataclass(frozen=True)
class Example:
    picture: Any  # (T, 2) uint8
    steps: Any  # (S,) int64
    marks: Any  # (T,) bool
    target: float
    place: int
    scored: bool


@st.composite
def examples(draw: st.DrawFn) -> Example:
    steps = draw(st.integers(0, 5))
    return Example(
        picture=draw(arrays(np.uint8, (steps, 2))),
        steps=draw(arrays(np.int64, draw(st.integers(0, 5)))),
        marks=draw(arrays(np.bool_, steps)),
        target=draw(st.floats(allow_nan=False)),
        place=draw(st.integers(-(2**63), 2**63 - 1)),
        scored=draw(st.booleans()),
    )


def example(steps: int = 3) -> Example:
    picture = np.arange(2 * steps, dtype=np.uint8).reshape(steps, 2)
    return Example(picture, np.arange(steps), np.ones(steps, np.bool_), 0.5, steps, True)


def cost(of: Example) -> int:
    return len(of.steps)


def same(one: Any, other: Any) -> bool:
    def parts(of: Any) -> list[tuple[Any, Any, Any]]:
        values = (np.asarray(getattr(of, f.name)) for f in dataclasses.fields(of))
        return [(value.dtype, value.shape, value.tobytes()) for value in values]

    return type(one) is type(other) and parts(one) == parts(other)


@given(st.lists(st.lists(examples(), max_size=4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_examples_come_back_as_they_were_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, lots: list[list[Example]]
) -> None:
    folder = tmp_path_factory.mktemp("shards") / "packed"
    shards.pack(folder, lots, cost)
    found, given_ = Shards(folder, Example), [one for lot in lots for one in lot]
    assert len(found) == len(given_)
    assert found.costs.tolist() == [len(one.steps) for one in given_]
    for i in reversed(range(len(given_))):
        assert same(found[i], given_[i])
        assert type(found[i].scored) is bool
        assert type(found[i].target) is float


def test_an_example_unlike_the_first_is_not_packed(tmp_path: Path) -> None:
    odd = dataclasses.replace(example(), steps=np.arange(3, dtype=np.int32))
    with pytest.raises(AssertionError, match="steps: int32"):
        shards.pack(tmp_path / "packed", [[example(), odd]], cost)
    assert not (tmp_path / "packed").exists()


def test_what_would_need_pickle_is_not_packed(tmp_path: Path) -> None:
    odd = dataclasses.replace(example(), steps=np.array(["a"], object))
    with pytest.raises(AssertionError, match="steps: object cannot be packed"):
        shards.pack(tmp_path / "packed", [[odd]], cost)


class Source:
    """Examples that can be asked for, and how often they were."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Iterator[Sequence[Example]]:
        self.asked += 1
        time.sleep(0.05)  # so that whoever does not wait is seen
        yield [example(2), example(5)]


def test_a_node_packs_once_however_many_workers_ask(tmp_path: Path) -> None:
    source, found = Source(), []

    def ask() -> None:
        found.append(shards.local(tmp_path, "key", Example, source, cost))

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert source.asked == 1
    assert [one.costs.tolist() for one in found] == [[2, 5]] * 4


def test_what_a_killed_worker_left_half_packed_is_packed_again(tmp_path: Path) -> None:
    def dies() -> Iterator[Sequence[Example]]:
        yield [example()]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.local(tmp_path, "key", Example, dies, cost)
    assert shards.local(tmp_path, "key", Example, Source(), cost).costs.tolist() == [2, 5]


def test_who_has_shards_open_reads_on_when_they_are_forgotten(tmp_path: Path) -> None:
    found = shards.local(tmp_path, "key", Example, Source(), cost)
    shards.forget(tmp_path, ["key", "never there"])
    assert not list(tmp_path.glob("key*"))
    assert same(found[1], example(5))


def test_shards_nobody_has_opened_for_a_day_go_when_others_come(tmp_path: Path) -> None:
    for key, age in (("old", node_cache.STALE_S + 60), ("young", node_cache.STALE_S - 60)):
        shards.local(tmp_path, key, Example, Source(), cost)
        then = time.time() - age
        os.utime(tmp_path / key, (then, then))
    shards.local(tmp_path, "new", Example, Source(), cost)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["new", "young"]


def test_records_cut_short_are_an_error_and_no_crash(tmp_path: Path) -> None:
    found = shards.local(tmp_path, "key", Example, Source(), cost)
    path = tmp_path / "key" / shards.RECORDS
    os.truncate(path, path.stat().st_size - 1)
    assert same(found[0], example(2))
    with pytest.raises(StoreError, match=r"records.bin was cut short; remove its folder"):
        found[1]


def test_a_cache_that_cannot_be_written_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be kept in .*LYCEUM_HOME"):
        shards.local(tmp_path / "file" / "cache", "key", Example, Source(), cost)


def test_no_part_of_a_split_is_held_while_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.job(tmp_path, answers=400)
    part = next(iter(parts(job.train)))
    more = [part.replace("00000", f"0000{number}") for number in (1, 2)]
    for copy in more:
        shutil.copy(part, copy)
    read: list[weakref.ref[Any]] = []

    def spied(uri: str) -> Any:
        assert [one() for one in read] == [None] * len(read)
        table = read_parquet(uri)
        read.append(weakref.ref(table))
        return table

    monkeypatch.setattr(splits, "read_parquet", spied)
    lesson = Splits.of(job).lesson()
    assert len(lesson.train) == 3 * 400 // bench.LENGTH
    assert len(read) == 3 + 1


def test_no_lot_of_examples_is_held_while_the_next_is_made(tmp_path: Path) -> None:
    class Lot(list[Example]):
        """A list that can be watched."""

    made: list[weakref.ref[Lot]] = []

    def lots() -> Iterator[Lot]:
        for _ in range(3):
            assert [one() for one in made] == [None] * len(made)
            lot = Lot([example()])
            made.append(weakref.ref(lot))
            yield lot
            del lot

    shards.pack(tmp_path / "packed", lots(), cost)
    assert len(made) == 3
