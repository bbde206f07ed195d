"""The data report as people and scripts read it: whole, in one file, and safe whatever the data."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import polars as pl
import pytest

from ray_jobs.data.clean import CleanTable
from ray_jobs.data.drift import drifts
from ray_jobs.data.profile import Profile, profile
from ray_jobs.data.proof import Proof
from ray_jobs.data.split import SplitTable
from ray_jobs.data.tables import write_part
from tasks import dataplots, datasheet, drawing, sheet
from tasks.sheet import Comparison, File, Sheet

SCRIPT = "<script>alert('x')</script>"
STRANGE = [
    SCRIPT,
    "a $b$ \\frac{",
    "分数 & 小数",
    "tab\tand \x01 control",
    "<b>|`*_[x](y)",
    "x" * 400,
]
BAD = {"conflict": 3, SCRIPT: 2}
VOID = {"meta", "img", "br"}


def profiled(folder: Path, correct: float) -> Profile:
    rows = [
        {
            "learner": f"pseudonym-{i % 60}",
            "item": STRANGE[i % len(STRANGE)],
            "skills": [STRANGE[i % 3]] if i % 4 else [],
            "correct": float(i % 100 < 100 * correct),
            "time": 1.7e9 + 3600.0 * i,
            SCRIPT: None if i % 5 else float(i),
        }
        for i in range(600)
    ]
    write_part(str(folder), 0, pl.DataFrame(rows))
    return profile(str(folder), group="learner", label="correct", keys=("item", "skills"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sheet:
    """A report with everything in it, of data that would like to be more than data."""
    mine = profiled(tmp_path_factory.mktemp("now"), 0.9)
    theirs = profiled(tmp_path_factory.mktemp("then"), 0.3)
    counts = {"train": 300, "validation": 100, "test": 200}
    return Sheet(
        service="algebra",
        family="knowledge",
        rows="answers",
        protocol="N: from earlier answers",
        ordered=True,
        table=CleanTable(
            "/store/clean", "d" * 64, 625, 600, BAD, 5, 15, True, "c", [SCRIPT], "5eed5eed"
        ),
        limit=0.2,
        files=[File([SCRIPT, "b.csv"], 620, 5)],
        profile=mine,
        splits=SplitTable("/store/split", False, counts, counts, counts, 1.701e9, 7),
        proof=Proof({"train": 30, "validation": 10, "test": 20}, 0, 1.701e9, 1.7005e9, 1.7015e9),
        comparisons=[
            Comparison("the previous snapshot", "01d01d", drifts(mine, theirs)),
            Comparison("the data of the champion", "", [], f"no report on {SCRIPT}"),
        ],
    )


@pytest.fixture(scope="module")
def written(whole: Sheet) -> str:
    return datasheet.page(whole)


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    @property
    def told(self) -> str:
        return "\n".join(self.text)


def test_a_page_needs_no_script_no_network_and_no_other_file(written: str) -> None:
    page = Page(written)
    assert page.open == []
    assert not {"script", "iframe", "object", "link", "form"} & set(page.tags)
    assert page.tags.count("img") == 6
    for link in page.links:
        assert link.startswith(("#", "data:image/svg+xml;base64,"))
    anchors = {f"#{name}" for name in ("rows", "files", "splits", "columns", "drift")}
    assert anchors <= set(page.links)


def test_what_comes_from_data_is_text_wherever_it_stands(written: str) -> None:
    assert "<script" not in written
    page = Page(written)
    for name in STRANGE[:3]:
        assert name in page.told, name
    assert page.told.count(SCRIPT) >= 6, "as file, note, column, item, reason of drift, skill"


def test_pictures_are_drawings_in_which_names_are_text(whole: Sheet) -> None:
    drawn = []
    for figure in dataplots.draw(whole).values():
        data = drawing.picture(figure).split(",", 1)[1]
        tree = ET.fromstring(base64.b64decode(data))
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
        drawn += [text for node in tree.iter() for text in [node.text or ""] if text.strip()]
    words = "\n".join(drawn)
    assert "分数 & 小数" in words, "text in the reader's own letters"
    assert "a $b$ \\frac{" in words, "no mathematics"
    assert max(map(len, drawn)) < 100


def test_the_same_report_is_the_same_page(whole: Sheet, written: str) -> None:
    assert datasheet.page(whole) == written


def test_the_page_and_the_document_say_what_was_counted(whole: Sheet, written: str) -> None:
    told = orjson.loads(orjson.dumps(sheet.document(whole)))
    accounts = told["accounts"]
    bad = sum(accounts["quarantined"].values())
    assert accounts["read"] == accounts["kept"] + bad + accounts["merged"] + accounts["repeats"]
    assert accounts["bad_fraction"] == pytest.approx(5 / 625)
    columns = told["profile"]["columns"]
    assert columns["item"]["distinct"] == len(STRANGE)
    assert columns["skills"]["missing_share"] == 0.25
    assert sum(columns["correct"]["numbers"]["histogram"]["rows"]) == 600
    assert told["profile"]["keys"]["learner"]["rows"]["quantiles"]["0.5"] == 10
    assert told["proof"]["leaks"] == ""
    readings = {d["name"]: d["reading"] for d in told["drift"][0]["drifts"]}
    assert (readings["correct"], readings["item"]) == ("large", "stable")
    page = Page(written).told
    for words in (
        "625 rows read = 600 kept + 5 quarantined + 5 merged + 15 repeats",
        "5 rows are bad, 0.80%: within the recipe's limit of 20%",
        "No leak: 0 groups stand in more than one split (30 train, 10 validation, 20 test)",
        "and training ends before testing begins",
        "2023-11-26 12:00:00",  # the cut
        "Not compared with the data of the champion: no report on",
    ):
        assert words in page, words


def test_nobody_is_named(whole: Sheet, written: str) -> None:
    document = orjson.dumps(sheet.document(whole)).decode()
    for text in (written, document, sheet.markdown(whole)):
        assert "pseudonym" not in text


def test_a_refused_log_is_reported_by_its_accounts_alone(whole: Sheet) -> None:
    refused = replace(
        whole,
        table=replace(whole.table, refused=f"5 of 625 rows are bad {SCRIPT}"),
        limit=0.001,
        profile=None,
        splits=None,
        proof=None,
        comparisons=(),
    )
    page = Page(datasheet.page(refused))
    assert "Refused." in page.told
    assert f"5 of 625 rows are bad {SCRIPT}" in page.told
    assert "beyond the recipe's limit" in page.told
    assert page.tags.count("img") == 1
    told: dict[str, Any] = sheet.document(refused)
    assert (told["profile"], told["splits"], told["proof"], told["drift"]) == (None, None, None, [])
    assert told["refused"].startswith("5 of 625")
    assert orjson.loads(orjson.dumps(told))["accounts"]["quarantined"] == BAD


@pytest.mark.parametrize(
    ("timed", "ordered", "words"),
    [
        (True, True, "rows carry times"),
        (False, True, "their order is their time"),
        (False, False, "their order tells nothing"),
    ],
)
def test_it_is_said_what_the_time_of_a_row_is(
    whole: Sheet, timed: bool, ordered: bool, words: str
) -> None:
    table = replace(whole.table, timed=timed)
    assert sheet.document(replace(whole, table=table, ordered=ordered))["order"].endswith(words)


def test_markdown_shows_data_and_does_not_read_it(whole: Sheet) -> None:
    text = sheet.markdown(whole)
    assert SCRIPT not in text
    assert "| quarantined: conflict | 3 |" in text
    assert sheet.plain("a|b *c* <d>\n[e](f)") == r"a\|b \*c\* &lt;d&gt; \[e\](f)"


def test_bars_are_as_long_as_what_they_count(whole: Sheet) -> None:
    drawn = dataplots.draw(whole)
    accounts = drawn["accounts"].axes[0]
    assert [bar.get_width() for bar in accounts.containers[0]] == [600, 3, 2, 5, 15]
    assert sum(bar.get_width() for bar in accounts.containers[0]) == whole.table.read
    shares = [bar.get_width() for bar in drawn["missing"].axes[0].containers[0]]
    assert shares == [0.8, 0.25]
    (steps,) = drawn["time"].axes[0].patches
    assert steps.get_data().values.sum() == 600  # type: ignore[attr-defined]
    learners = drawn["keys"].axes[0].patches[0]
    assert learners.get_data().values.sum() == 60  # type: ignore[attr-defined]


def test_of_many_columns_some_are_drawn_and_it_is_said(whole: Sheet) -> None:
    assert whole.profile is not None
    one = whole.profile.columns["correct"]
    many = replace(whole.profile, columns={f"x:{i}": one for i in range(40)})
    figure = dataplots.draw(replace(whole, profile=many))["columns"]
    assert len(figure.axes) == dataplots.MOST_COLUMNS
    assert "The plots show the first 24." in datasheet.page(replace(whole, profile=many))


def test_what_moved_farthest_stands_at_the_top(whole: Sheet) -> None:
    axes = dataplots.draw(whole)["drift"].axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    indices = {d.name: d.index for d in whole.comparisons[0].drifts if d.index is not None}
    assert names[0] == max(indices, key=lambda name: indices[name])
    assert len(names) == len(indices)
    assert axes.yaxis_inverted()
