"""Fixtures that several test files share: a small market on disk, a spec for it, and a real Prefect API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_market import make_market, write_config

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the 505-stock files; tests that need them are skipped where they are absent."""
    if not (SHARED / "sp500_5yr_daily.parquet").exists():
        pytest.skip("the 505-stock files are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Start a Prefect server of its own, with its own database, for the whole session; give its address."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with prices and a config; return the path of the config."""
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "out"))
    make_market().write_parquet(tmp_path / "prices.parquet")
    return write_config(tmp_path, {})
