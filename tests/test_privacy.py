"""What is promised to learners: no name of theirs lies anywhere, and only the key opens what is."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid5

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data.clean import clean
from ray_jobs.data.ingestion import ingest
from ray_jobs.data.sources import each_alone, find
from ray_jobs.data.split import split
from ray_jobs.errors import LyceumError
from ray_jobs.families.knowledge import formats, rules
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.privacy import Key, buckets, load_key, salted
from ray_jobs.recipe import Split

KEY, OTHER = Key(bytes(32)), Key(b"o" * 32)
NAMES = st.text(max_size=20)


@settings(deadline=None)
@given(NAMES, NAMES)
def test_pseudonyms_agree_under_one_key_and_differ_otherwise(one: str, two: str) -> None:
    assert (KEY.pseudonym(one) == KEY.pseudonym(two)) == (one == two)
    assert KEY.pseudonym(one) != OTHER.pseudonym(one)
    assert len(KEY.pseudonym(one)) == 24


@settings(deadline=None)
@given(st.lists(st.none() | st.sampled_from("abcdef")))
def test_columns_are_mapped_as_single_values_are_and_nobody_stays_nobody(
    names: list[str | None],
) -> None:
    series = pl.Series("learner", names, pl.String)
    expected = [None if name is None else KEY.pseudonym(name) for name in names]
    assert KEY.pseudonyms(series).to_list() == expected
    assert [b is None for b in buckets(series)] == [name is None for name in names]
    assert KEY.pseudonyms(series).dtype == pl.String
    assert buckets(series).dtype == pl.UInt64


def test_buckets_never_change_between_installations_and_releases() -> None:
    """Golden: with other numbers, test learners of before would be trained on."""
    assert buckets(pl.Series(["ann", "0"])).to_list() == [
        11415030638911680568,
        17731449968725630539,
    ]
    places = salted(pl.Series([0, 2**64 - 1], dtype=pl.UInt64), "school").to_list()
    assert places == pytest.approx([0.8317705, 0.6160461], abs=1e-6)


@settings(deadline=None)
@given(NAMES)
def test_sealed_text_opens_with_its_key_alone(text: str) -> None:
    sealed = KEY.seal(text)
    assert KEY.unseal(sealed) == text
    assert sealed != KEY.seal(text)
    with pytest.raises(LyceumError, match="LYCEUM_KEY_FILE"):
        OTHER.unseal(sealed)
    with pytest.raises(LyceumError, match="damaged"):
        KEY.unseal(sealed[:-1])


def test_signatures_hold_for_their_payload_and_key() -> None:
    signature = KEY.signature(b"payload")
    assert signature == KEY.signature(b"payload")
    assert signature not in {KEY.signature(b"payloae"), OTHER.signature(b"payload")}


def test_a_key_never_shows_itself() -> None:
    secret = bytes(range(32))
    shown = f"{Key(secret)!r} {Key(secret)} {Key(secret).fingerprint}"
    assert str(secret) not in shown
    assert secret.hex()[:8] not in shown
    assert KEY.fingerprint != OTHER.fingerprint


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(load_key, [path] * 8))
    assert keys == {load_key(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    assert load_key(tmp_path / "another") not in keys


@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"short").decode(), "é"])
def test_a_file_that_holds_no_key_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(LyceumError, match="key file"):
        load_key(path)
    assert path.read_text() == text


def test_a_node_without_the_key_makes_none_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "config" / "key"
    with pytest.raises(LyceumError, match=r"no key in .*key of this node; lay the key there"):
        load_key(path, make=False)
    assert not path.exists()
    assert load_key(path) == load_key(path, make=False)


def test_a_key_that_cannot_be_made_says_where_to_put_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LyceumError, match="LYCEUM_KEY_FILE"):
        load_key(tmp_path / "file" / "key")


def seen(folder: Path) -> bytes:
    """All that lies in a folder: names, bytes, and the values of Parquet tables."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        found += [str(path).encode(), path.read_bytes()]
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            binary = [c for c, kind in frame.schema.items() if kind == pl.Binary]
            found += [value for c in binary for value in frame[c].to_list()]
            found.append(frame.drop(binary).write_ndjson().encode())
    return b"\n".join(found)


def test_no_learner_is_named_anywhere_on_the_store(tmp_path: Path) -> None:
    ids = [str(uuid5(UUID(int=0), str(n))) for n in range(40)]
    lines = ["learner,item,skills,correct,time,mail"]
    for n, name in enumerate(ids):
        lines += [f"{name},i{n % 5},s,{n % 2},{100 + n},{name}@school" for n in range(n, n + 3)]
        lines += [f"{name},,s,1,5,", f"{name},i,s,maybe,5,", f"{name},torn", f"{name},a,b,c,d,e,f"]
        lines += [f"{name},i1,s,{outcome},7,x" for outcome in (0, 1)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    uri = tmp_path / "store"
    snapshot, _ = ingest(
        each_alone(find(str(tmp_path / "log.csv"))),
        lambda unit: formats.read(unit, Columns()),
        group="learner",
        key=KEY,
        store_uri=str(uri),
    )
    table = clean(
        snapshot,
        lambda rows, timed: rules.clean(rows, timed, Columns()),
        uri=str(uri / "clean"),
        key=KEY,
        max_bad_fraction=1.0,
    )
    split(table, Split(0.3, 0.3), group="learner", salt="s", uri=str(uri / "split"))
    everything = seen(uri)
    assert len(table.quarantined) == 4
    assert KEY.pseudonym(ids[0]).encode() in everything
    for name in ids:
        for spelling in (name, name.upper(), name.replace("-", ""), UUID(name).bytes.hex()):
            assert spelling.encode() not in everything
        assert UUID(name).bytes not in everything
        assert base64.b64encode(name.encode()) not in everything
