"""From a log to three splits, beside plain polars on the same file.

Each side runs in a process of its own, in turn, so that its peak memory is its
own and a noisy machine disturbs both alike.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from ray_jobs.data import ingestion, sources
from ray_jobs.data.clean import clean
from ray_jobs.data.split import split
from ray_jobs.families import family
from ray_jobs.families.knowledge.table import Columns
from ray_jobs.privacy import Key
from ray_jobs.recipe import Split
from tests.bench import logs

ROUNDS = {10_000_000: 5, 50_000_000: 1}  # rows: pairs


def main() -> None:
    """Print, for each size, how many times as long as plain polars we take, and our peak memory."""
    per_row = []
    for rows, rounds in ROUNDS.items():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log.csv")
            logs.write(log, rows)
            # Beyond memory the plain way is not there to be compared with.
            pairs = [
                (_measured("ours", log), _measured("plain", log) if rounds > 1 else None)
                for _ in range(rounds)
            ]
        ours = statistics.median(mine["seconds"] for mine, _ in pairs)
        peak = max(mine["peak_gib"] for mine, _ in pairs)
        per_row.append(ours / rows)
        ratios = [mine["seconds"] / other["seconds"] for mine, other in pairs if other]
        beside = f"{statistics.median(ratios):.2f} times plain polars, " if ratios else ""
        print(
            f"ingest, clean and split of {rows:,} rows: {beside}peak {peak:.2f} GiB ({ours:.1f} s)"
        )
    print(f"seconds per row, {' / '.join(f'{n:,}' for n in reversed(ROUNDS))} rows: "
          f"{per_row[-1] / per_row[0]:.2f}")  # fmt: skip


def _measured(side: str, log: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", __spec__.name if __spec__ else __name__, side, str(log)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ours(log: Path, folder: Path) -> int:
    """Our three stages; the rows that are kept."""
    of, columns, key = family("knowledge"), Columns(), Key(bytes(32))
    taken, _ = ingestion.ingest(
        of.units(sources.find(str(log))),
        lambda unit: of.read(unit, columns),
        group=of.group,
        ordered=of.ordered,
        key=key,
        store_uri=str(folder / "store"),
    )
    table = clean(
        taken,
        lambda rows, timed: of.clean(rows, timed, columns),
        uri=str(folder / "clean"),
        key=key,
        max_bad_fraction=0.1,
    )
    done = split(table, Split(), group=of.group, salt="bench", uri=str(folder / "split"))
    return sum(done.rows.values())


def plain(log: Path, folder: Path) -> int:
    """Scan, cast, filter, unique, sort and write, with nothing counted and nothing kept apart."""
    time_, correct = pl.col("timestamp"), pl.col("correct")
    rows = pl.scan_csv(log, infer_schema=False, truncate_ragged_lines=True)
    rows = rows.with_columns(
        time_.cast(pl.Float64, strict=False), correct.cast(pl.Float32, strict=False)
    )
    rows = rows.filter(
        pl.col("user_id").is_not_null(), pl.col("item_id").is_not_null(),
        time_.is_between(0, 4_102_444_800), correct.is_between(0, 1),
    )  # fmt: skip
    table = rows.unique().sort("user_id", "timestamp", "item_id").collect()
    table.write_parquet(folder / "table.parquet")
    return len(table)


def _side(name: str, log: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        kept = {"ours": ours, "plain": plain}[name](log, Path(folder))
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    print(json.dumps({"kept": kept, "seconds": seconds, "peak_gib": peak}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _side(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
