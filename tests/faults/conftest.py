"""Faults, each injected, are what `docs/reliability.md` lists, by theme; here runs in processes of their own for them.

Tests of one part lie where its module's name says.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from injection import Injector, ingest_config, seen_at
from small_market import SMALL, make_market, write_config


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Injector:
    """Run jobs in processes that talk to the session's Prefect server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", prefect_api)
        yield Injector(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of a small market up to October 2016, with one model."""
    return _config(tmp_path_factory.mktemp("early"), end="2016-10-31")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of the same market up to December 2016, with two more stocks and one impossible bar."""
    return _config(tmp_path_factory.mktemp("late"), stocks=26)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, injector: Injector, early: Path, late: Path):
    """Return a root after the early ingest, what it holds before and after the late one, and the steps of that."""
    folder = tmp_path_factory.mktemp("ingested")
    assert injector.run(ingest_config, early, folder / "old").exitcode == 0
    shutil.copytree(folder / "old", folder / "new")
    whole = injector.run(ingest_config, late, folder / "new")
    assert whole.exitcode == 0, whole.said
    (before,), (after,) = seen_at(folder / "old").cubes, seen_at(folder / "new").cubes
    assert before != after
    assert whole.steps > 50
    return folder / "old", before, after, whole.steps


def _config(folder: Path, **market: object) -> Path:
    make_market(**market).write_parquet(folder / "prices.parquet")
    return write_config(folder, {"models": SMALL["models"][:1]})
