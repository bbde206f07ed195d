"""What is promised of bytes: in any encoding and any packing, the same rows, or a way out."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.data import readers
from ray_jobs.data.raw import Raw, together
from ray_jobs.data.sources import find
from ray_jobs.errors import ContractError, UsageError
from tests.data_parts import TIMED, cleaned, csv, delivered

ROWS = [(f"u{n}", "café", "naïve;œuvre", str(n % 2), str(n)) for n in range(40)]
LOG = csv(ROWS).decode() + "\n"


def zipped(data: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("log.csv",):
            archive.writestr(name, data)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".zip": zipped,
}


def read(path: Path, data: bytes, encoding: str = "", block_bytes: int = 1 << 20) -> Raw:
    path.write_bytes(data)
    (source,) = find(str(path), encoding)
    return together(readers.batches(source, block_bytes=block_bytes))


@pytest.mark.parametrize(
    ("named", "written"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ("utf-8", "utf-8-sig"),
        ("utf-16-le", "utf-16-le"),
        ("cp1252", "cp1252"),
        ("iso8859_15", "iso8859_15"),
        ("gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
def test_a_log_says_the_same_in_every_encoding(
    named: str, written: str, block_bytes: int, tmp_path: Path
) -> None:
    plain = read(tmp_path / "log.csv", LOG.encode())
    found = read(tmp_path / "log.csv", LOG.encode(written), named, block_bytes)
    assert found.rows.equals(plain.rows)
    assert found.malformed.is_empty()


def test_a_mark_of_the_other_byte_order_is_heeded(tmp_path: Path) -> None:
    data = codecs.BOM_UTF16_BE + LOG.encode("utf-16-be")
    plain = read(tmp_path / "log.csv", LOG.encode())
    assert read(tmp_path / "log.csv", data).rows.equals(plain.rows)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(st.sampled_from("aé中😀 "), max_size=5), min_size=1, max_size=9),
    st.integers(1, 9),
)
def test_where_a_file_is_cut_no_character_is(texts: list[str], block_bytes: int) -> None:
    data = "".join(f"{n},{text}\n" for n, text in enumerate(["item", *texts]))
    with TemporaryDirectory() as folder:
        found = read(Path(folder, "log.csv"), data.encode("utf-16"), "", block_bytes)
    assert found.rows["item"].to_list() == [text.strip() or None for text in texts]


@pytest.mark.parametrize("suffix", PACKED)
def test_a_log_says_the_same_however_it_is_packed(suffix: str, tmp_path: Path) -> None:
    plain = delivered(tmp_path / "plain", {"log.csv": csv([*TIMED, *ROWS])})
    packed = PACKED[suffix](csv([*TIMED, *ROWS]))
    assert delivered(tmp_path / "packed", {f"log.csv{suffix}": packed}).digest == plain.digest


@pytest.mark.parametrize("suffix", PACKED)
def test_a_packed_file_that_is_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    data = PACKED[suffix](LOG.encode() * 99)
    for cut in (data[: len(data) // 2], b"neither packed nor whole" * 9):
        with pytest.raises(ContractError, match=r"log\.csv.*deliver it again"):
            read(tmp_path / f"log.csv{suffix}", cut)


def test_an_archive_of_several_files_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"holds 2 files \(a\.csv, b\.csv\).*unpack it"):
        read(tmp_path / "log.csv.zip", zipped(LOG.encode(), "a.csv", "b.csv"))


def test_what_another_encoding_wrote_is_set_apart_and_the_way_out_is_said(tmp_path: Path) -> None:
    rows = [*TIMED, *((f"u{n}", "i", "s", "1", str(n)) for n in range(20)), ROWS[0]]
    table = cleaned(tmp_path / "few", {"log.csv": csv(rows).decode().encode("cp1252", "replace")})
    assert table.quarantined == {"unreadable_bytes": 1}
    (note,) = table.notes
    assert note.startswith("log.csv: 1 lines, the first of them 24, hold bytes")
    assert "--set encoding=" in note
    with pytest.raises(ContractError, match=r"unreadable_bytes\).*--set encoding=latin-1"):
        cleaned(
            tmp_path / "many",
            {"log.csv": csv([*TIMED, *ROWS]).decode().encode("cp1252")},
            limit=0.1,
        )


@pytest.mark.parametrize("name", ["latin-99", "zlib", "rot13"])
def test_an_encoding_that_there_is_not_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    with pytest.raises(UsageError, match=f"encoding={name}.*gb18030"):
        find(str(tmp_path / "log.csv"), name)


def test_utf_16_without_a_mark_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"NUL bytes.*--set encoding=utf-16-le"):
        read(tmp_path / "log.csv", LOG.encode("utf-16-le"))
