"""The page in a real browser: it draws, asks for nothing, lets one choose, and fits a telephone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import BROWSER, browser_tab
from fixtures_versions import make_versions

from reporting import render_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine"),
]
NASTY = ["<img src=x onerror=document.title='owned'>", "</script><script>document.title='owned'</script>", "$$x^2$$"]
DRAWN = "[...document.querySelectorAll('.panel:not([hidden]) .plot')].map((plot) => plot.childElementCount)"
SHOWN = "document.querySelector('.panel:not([hidden]) .verdict').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tickers = [*NASTY, *[f"T{number:03d}" for number in range(12)]]
    versions = make_versions(("market", "ipca"), n_dates=400, n_portfolios=2, tickers=tickers)
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(render_report(versions, None, title="in a browser"), encoding="utf-8")
    return file


def test_the_page_draws_without_errors_or_requests_and_lets_one_choose(page: Path, tmp_path: Path) -> None:
    with browser_tab(tmp_path / "profile") as tab:
        tab.open(page, 1400)
        assert len(drawn := tab.value(DRAWN)) > 4
        assert all(drawn)
        assert tab.value(SHOWN).startswith("equal_weight by market: ")
        first = tab.value("document.querySelector('.panel:not([hidden]) .plot').id")
        tab.value(
            "(() => { const choice = document.querySelector('select[data-choice=portfolio]'); choice.value = '1';"
            "choice.dispatchEvent(new Event('change')); })()"
        )
        tab.settle()
        assert tab.value(SHOWN).startswith("long_short by market: ")
        assert all(tab.value(DRAWN))
        assert tab.value("document.querySelector('.panel:not([hidden]) .plot').id") != first
        assert tab.value("document.title") == "in a browser"
        assert {url for url in tab.requests if not url.startswith("data:")} == {page.as_uri()}
        assert tab.complaints == []


def test_a_script_that_is_not_ours_does_not_run(page: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    text = page.read_text(encoding="utf-8")
    changed.write_text(text.replace("</body>", "<script>document.title='owned'</script></body>"), encoding="utf-8")
    with browser_tab(tmp_path / "profile") as tab:
        tab.open(changed, 1400)
        assert tab.value("document.title") == "in a browser"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_scrolls_only_downwards(page: Path, tmp_path: Path, scheme: str) -> None:
    with browser_tab(tmp_path / "profile") as tab:
        tab.open(page, 390, scheme)
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert all(tab.value(DRAWN))
