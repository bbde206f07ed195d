"""Scoring on a real Ray: the same tables, and errors as themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray

from ray_jobs import scoring
from ray_jobs.errors import ServiceError
from ray_jobs.scoring import Scoring
from tests.test_scoring import asked, here, made, small

__all__ = ["asked", "small"]  # fixtures

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_thread", "on_ray")]


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as temp:
        ray.init(address="local", num_cpus=2, log_to_driver=False, _temp_dir=temp)
        yield
        ray.shutdown()


def test_ray_makes_the_tables_that_one_process_makes(asked: Scoring) -> None:
    alone = replace(asked, out=f"{asked.out}-alone")
    expected = scoring.run(alone, "learner", here(alone))
    assert scoring.run(asked, "learner", scoring.on_ray(asked)) == expected
    for name in expected:
        assert made(asked, name).equals(made(alone, name))


def test_an_error_on_a_worker_is_told_as_it_is(asked: Scoring) -> None:
    other = replace(asked, digest="0" * 64)
    with pytest.raises(ServiceError, match=r"^\S+ has digest \w{12}, but 0{12} was registered"):
        scoring.run(other, "learner", scoring.on_ray(other))
