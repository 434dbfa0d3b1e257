"""Names that come from data stay text in the report and in Data Docs, in a parser and in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from browsing import BROWSER, Tab, browser_tab
from pages import Page
from running import Inline, ingested
from small_market import make_market, write_config

from schemas.settings import load_settings
from storage.configs import load_spec
from tasks.publishing import write_version_report
from tasks.training import train
from tasks.workspace import Workspace

OWN = "document.title='owned'"
NASTY = [
    f"<script>{OWN}</script>",
    f'"><img src=x onerror="{OWN}">',
    f"</title><svg onload={OWN}>",
    f"'-{OWN}-'{{{{7*7}}}}${{7*7}}",
]
CHARACTERISTICS = [f"<img src=x onerror={OWN}>", "</style><script>alert(1)</script>"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every page of a run on data whose tickers and characteristics are attacks."""
    folder = tmp_path_factory.mktemp("nasty")
    market = make_market(stocks=16)
    renamed = {f"S{place:03d}": name for place, name in enumerate(NASTY)}
    panel = market.sort("ticker", "date").select(
        "date",
        pl.col("ticker").replace(renamed),
        (pl.col("close") / pl.col("close").shift(1).over("ticker") - 1.0).alias("ret"),
        *(pl.lit(np.random.default_rng(place).normal(size=market.height)).alias(name)
          for place, name in enumerate(CHARACTERISTICS)),
    )  # fmt: skip
    bad = (pl.col("ticker") == NASTY[0]) & (pl.col("date") == pl.datetime(2016, 5, 5))
    panel.with_columns(pl.when(bad).then(-1.5).otherwise(pl.col("ret")).alias("ret")).write_parquet(
        folder / "panel.parquet"
    )
    config = write_config(
        folder,
        {
            "data": {
                "shape": "long_panel",
                "origin": {"kind": "files", "paths": ["panel.parquet"]},
                "characteristics": CHARACTERISTICS,
            },
            "characteristics": None,
            "portfolios": [{"kind": "fixed", "name": "nasty", "weights": dict.fromkeys(NASTY, 0.25)}],
            "models": [{"kind": "fama_macbeth"}],
            "report": {"tickers": NASTY},
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORCUBE_ROOT", str(folder / "out"))
        spec, settings = load_spec(config), load_settings()
        (ref,) = train(spec, spec.models, ingested(spec, settings), None, Inline(), settings, promote_first=True)
        report = write_version_report(Workspace.of(settings), f"small/fama_macbeth/{ref.version}", folder / "r.html")
    return [report, *sorted((folder / "out/data_docs/small").glob("*.html"))]


@pytest.mark.slow
def test_no_page_has_anything_that_runs_and_the_names_are_there_as_text(pages: list[Path]) -> None:
    assert len(pages) > 5
    texts = [page.read_text(encoding="utf-8") for page in pages]
    for path, text in zip(pages, texts, strict=True):
        page = Page(text)
        assert page.live == [], path.name
        assert "owned" not in page.title
    assert "&lt;script&gt;document.title=" in texts[0], "the report names the ticker"
    assert "&lt;img src=x onerror=" in texts[0], "the report names the factor"
    assert any("&lt;script&gt;document.title=" in text for text in texts[1:]), "Data Docs name the ticker"


def opened(tab: Tab, page: Path) -> Page:
    """Open a page in a browser, let it run, and return what became of it."""
    tab.load(page)
    return Page(tab.value("document.documentElement.outerHTML"))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no chromium here; the test beside this one reads with a parser")
def test_no_page_runs_anything_in_a_browser(pages: list[Path], tmp_path: Path) -> None:
    with browser_tab(tmp_path / "profile") as tab:
        for place, attack in enumerate(NASTY[:3]):
            control = tmp_path / f"control{place}.html"
            control.write_text(f'<html><head></head><body><p title="{attack}">{attack}</p></body></html>')
            assert opened(tab, control).title == "owned", "the attack works where nothing escapes"
        for page in pages:
            became = opened(tab, page)
            assert became.live == [], page.name
            assert became.title not in {"", "owned"}
