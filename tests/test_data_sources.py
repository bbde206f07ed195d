"""What `--data` may name, and which splits and folds are read off the names."""

from __future__ import annotations

import re
from pathlib import Path

import fsspec
import pytest

from ray_jobs.data.sources import Source, find
from ray_jobs.errors import ContractError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "delivery"


def lay(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("learner,item,correct\nu,i,1\n")
    return str(folder)


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def splits(sources: list[Source]) -> dict[str, str | None]:
    return {source.name: source.split for source in sources}


def test_a_folder_gives_its_data_files_by_name_and_leaves_the_rest(folder: Path) -> None:
    data = lay(folder, "b.csv", "a.tsv", "sub/c.jsonl", "d.parquet", "notes.md", "map.json", "e")
    lay(folder, ".hidden.csv", ".checkpoints/b.csv")
    assert names(find(data)) == ["a.tsv", "b.csv", "d.parquet", "sub/c.jsonl"]


def test_files_called_alike_in_two_folders_are_told_apart(folder: Path) -> None:
    data = lay(folder, "x/log.2025.csv.gz", "y/log.2025.csv.gz", "y/log.2026.csv")
    assert names(find(data)) == ["x/log.2025.csv.gz", "y/log.2025.csv.gz", "y/log.2026.csv"]
    assert [s.stem for s in find(data)] == ["x/log.2025", "y/log.2025", "y/log.2026"]


def test_what_else_lies_in_a_folder_changes_no_name(folder: Path) -> None:
    data = lay(folder, "x/a.csv")
    assert names(find(data)) == names(find(f"{folder}/*/a.csv")) == ["x/a.csv"]
    lay(folder, "y/b.csv")
    assert names(find(data)) == ["x/a.csv", "y/b.csv"]
    assert names(find(f"{folder}/x/a.csv")) == names(find(f"{folder}/x/*.csv")) == ["a.csv"]


def test_a_file_is_found_whatever_it_is_called(folder: Path) -> None:
    lay(folder, "log[1].csv", "log1.csv")
    assert names(find(f"{folder}/log[1].csv")) == ["log[1].csv"]


def test_a_split_may_come_in_numbered_parts(folder: Path) -> None:
    data = lay(
        folder,
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "test-00000-of-00001.parquet",
    )
    assert sorted(s.split or "" for s in find(data)) == ["test", "train", "train"]


def test_a_file_or_a_glob_gives_what_it_names(folder: Path) -> None:
    lay(folder, "a.csv", "b.csv.gz", "c.json")
    assert names(find(f"{folder}/c.json")) == ["c.json"]
    assert names(find(f"{folder}/*.gz")) == ["b.csv.gz"]
    assert [s.kind for s in find(f"{folder}/*.csv*")] == [".csv", ".csv"]


def test_any_fsspec_url_is_read() -> None:
    url = "memory://sources-test/log.csv"
    with fsspec.open(url, "wb") as file:
        file.write(b"learner,item,correct\n")
    (source,) = find("memory://sources-test")
    assert source.read() == b"learner,item,correct\n"
    assert len(source.digest()) == 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "give --data PATH"),
        ("{folder}/nowhere", "nothing there"),
        ("{folder}", "no data file among 1 files; expected .csv"),
        ("{folder}/*.csv", "no data file among 0 files"),
        ("nonsense://bucket/log.csv", "nonsense"),
    ],
)
def test_what_holds_no_data_is_refused(data: str, message: str, folder: Path) -> None:
    lay(folder, "README.md")
    with pytest.raises(UsageError, match=message):
        find(data.format(folder=folder))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("set_train.csv", "train"),
        ("train.csv", "train"),
        ("builder-train.part.csv.gz", "train"),
        ("SET_TRAIN.CSV", "train"),
        ("datatrain.csv", "train"),
        ("retrain.csv", None),
        ("constraint.csv", None),
    ],
)
def test_a_split_is_read_off_a_whole_word_of_the_name(
    name: str, split: str | None, folder: Path
) -> None:
    found = splits(find(lay(folder, name, name.lower().replace("train", "test"))))
    assert found[name] == split


def test_training_and_data_before_it_are_said_of_a_split_too(folder: Path) -> None:
    data = lay(folder, "datatraining.txt.gz", "datatest.txt.gz", "datatest2.txt.gz")
    found = splits(find(data))
    assert found == {
        "datatest.txt.gz": "test", "datatest2.txt.gz": "test", "datatraining.txt.gz": "train",
    }  # fmt: skip


def test_validation_goes_by_several_names(folder: Path) -> None:
    for word in ("valid", "validation", "dev"):
        data = lay(folder / word, "s_train.csv", f"s_{word}.csv", "s_test.csv")
        assert set(splits(find(data)).values()) == {"train", "validation", "test"}


@pytest.mark.parametrize("alone", ["s_test.csv", "s_train.csv"])
def test_half_a_split_is_none(alone: str, folder: Path) -> None:
    assert splits(find(lay(folder, alone))) == {alone: None}


def test_several_folds_are_refused_with_a_remedy_that_works(folder: Path) -> None:
    parts = [f"s_{part}{fold}.csv.gz" for part in ("train", "valid", "test") for fold in (1, 2)]
    for data in (lay(folder, *parts), f"{folder}/*.csv.gz"):
        with pytest.raises(ContractError, match="folds 1, 2 of one data set") as caught:
            find(data)
        remedy = re.search(r"--data '(.*)'", str(caught.value))
        assert remedy is not None
        assert names(find(remedy[1])) == ["s_test1.csv.gz", "s_train1.csv.gz", "s_valid1.csv.gz"]


def test_folds_are_told_in_capitals_too(folder: Path) -> None:
    with pytest.raises(ContractError, match="folds 1, 2 of one data set"):
        find(lay(folder, "S_TRAIN1.CSV", "S_TRAIN2.CSV", "S_TEST1.CSV"))


def test_a_file_that_went_away_is_told_by_its_url(folder: Path) -> None:
    (source,) = find(lay(folder, "a.csv"))
    (folder / "a.csv").unlink()
    with pytest.raises(ContractError, match=r"a\.csv cannot be read: .*; deliver it again"):
        source.read()


def test_several_data_sets_with_splits_are_refused(folder: Path) -> None:
    data = lay(folder, "a_train.csv", "a_test.csv", "b_train.csv", "b_test.csv")
    with pytest.raises(ContractError, match="several data sets"):
        find(data)
    assert len(find(f"{data}/a_*")) == 2


def test_a_file_of_no_split_beside_train_and_test_is_not_guessed_at(folder: Path) -> None:
    data = lay(folder, "s_train.csv", "s_test.csv", "skill_names.txt")
    with pytest.raises(ContractError, match="of neither"):
        find(data)
    assert len(find(f"{data}/s_*")) == 2
