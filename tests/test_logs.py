"""Lines of a replica's log: JSON, of which version and request, without a word of a learner."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from ray._common.formatters import JSONFormatter
from ray.serve._private.constants import SERVE_LOGGER_NAME

from ray_jobs.artifact import Artifact
from ray_jobs.serving import logs
from tests.surface_parts import released


@pytest.fixture
def lines(model: Artifact) -> Iterator[StringIO]:
    """What Serve's handler of a replica is given, once ours go there too."""
    serve, ours = logging.getLogger(SERVE_LOGGER_NAME), logging.getLogger(logs.OURS)
    before = serve.handlers, ours.handlers, ours.propagate, ours.level
    written = StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    serve.handlers = [handler]
    try:
        logs.structured(released(model))
        yield written
    finally:
        serve.handlers, ours.handlers, ours.propagate, level = before
        ours.setLevel(level)


def test_a_line_is_json_and_says_of_which_version_it_is(lines: StringIO) -> None:
    logging.getLogger("ray_jobs.serving.keys").info("%s keys", 3)
    told = json.loads(lines.getvalue())
    assert (told["message"], told["levelname"]) == ("3 keys", "INFO")
    assert (told["service"], told["version"]) == ("algebra-practice", "7")
    assert told["lineage"] == "07" * 16


def test_an_exception_is_told_by_kind_and_place_and_not_by_its_words(lines: StringIO) -> None:
    def looked_up(learner: str) -> int:
        return {"grace": 1}[learner]

    try:
        looked_up("Ada Lovelace")
    except KeyError:
        logging.getLogger("ray_jobs.serving.surface").exception("request failed")
    assert "Ada" not in lines.getvalue()
    told = json.loads(lines.getvalue())
    assert told["fault"] == "KeyError"
    assert told["at"][-1].startswith("test_logs.py:")
    assert told["at"][-1].endswith(" looked_up")
    assert told["levelname"] == "ERROR"


def test_what_serve_says_of_an_exception_is_cut_alike(lines: StringIO) -> None:
    try:
        int("Ada Lovelace")
    except ValueError:
        logging.getLogger(f"{SERVE_LOGGER_NAME}.replica").exception("oh")
    assert "Ada" not in lines.getvalue()
    assert json.loads(lines.getvalue())["fault"] == "ValueError"
