"""`factorcube explore`: a real server, a real browser where there is one, and others who ask."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import BROWSER, browser_tab
from fixtures_versions import make_versions
from ports import free_port
from storing import STATE
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from deploy import explore, explorer
from models import RiskModel
from reporting import explorer as charts
from schemas.errors import SourceError
from schemas.settings import Settings
from storage import published
from storage.layout import Layout
from tasks import books
from tasks.books import open_risk, weights_of_upload

ROOT = Path(__file__).resolve().parents[2]
COMPARE = (
    "(() => { const found = []; const look = (node) => node.querySelectorAll('*').forEach((one) => {"
    " if (one.tagName === 'SELECT') found.push(one); if (one.shadowRoot) look(one.shadowRoot); }); look(document);"
    " const choice = found.at(-1); choice.value = choice.options[1].value;"
    " choice.dispatchEvent(new Event('change', { bubbles: true })); })()"
)
"""Chooses the first of the versions that one may be compared with."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for made in make_versions(("market", "ipca"), n_dates=300, tickers=["<img src=x onerror=a()>", "T1", "T2", "T3"]):
        ref = published.publish(Layout(root), made.dataset, made.manifest, STATE)
        published.promote(Layout(root), ref.universe, ref.model, ref.version, reason="<b>test</b>")
    return root


@pytest.fixture(scope="module")
def entrance(root: Path) -> Iterator[str]:
    """Serve in a thread, and give the address that lets in."""
    started, port = queue.Queue[Any](), free_port()

    def serve() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = explore.opened(Settings(root=root), port, "told")
        server.start()
        started.put(server.io_loop)
        server.io_loop.start()
        server.stop()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    loop = started.get(timeout=60)
    yield explore.entrance(port, "told")
    loop.add_callback(loop.stop)
    thread.join(timeout=10)


@pytest.fixture
def url(entrance: str) -> str:
    return entrance.partition("/enter")[0]


def cookie(entrance: str) -> str:
    return httpx.get(entrance).headers["set-cookie"].partition(";")[0]


def test_whoever_has_the_address_is_let_in_and_nobody_else(entrance: str, url: str) -> None:
    assert httpx.get(url, follow_redirects=True).status_code == 403
    assert httpx.get(f"{url}/enter?token=guessed").status_code == 403
    page = httpx.get(url, headers={"Cookie": cookie(entrance)})
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "https://" not in page.text.replace("https://panel.holoviz.org", "")


@pytest.mark.parametrize("path", ["/", "/enter", "/static/js/bokeh.min.js"])
def test_a_name_that_was_turned_to_this_machine_is_refused(entrance: str, url: str, path: str) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80"):
        assert httpx.get(url + path, headers={"Host": host, "Cookie": cookie(entrance)}).status_code == 400
    assert httpx.get(url, headers={"Host": "localhost", "Cookie": cookie(entrance)}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/component-resources/antigravity/a/__css__/x",
        "/autoload.js?bokeh-autoload-element=1",
        "/static/../../../../../etc/passwd",
        "/static/extensions/panel/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
    ],
)
def test_nothing_else_is_reached_through_it(entrance: str, url: str, path: str) -> None:
    answer = httpx.get(url + path, headers={"Cookie": cookie(entrance)})
    assert answer.status_code in {403, 404}
    assert "root:" not in answer.text
    assert ("refused" in answer.text) == path.startswith(("/component-resources", "/autoload"))


@pytest.mark.parametrize(("origin", "let_in"), [("http://evil.example", True), (None, False)])
def test_the_websocket_is_for_its_own_page_and_for_who_was_let_in(
    entrance: str, url: str, origin: str | None, let_in: bool
) -> None:
    headers = {"Origin": origin or url} | ({"Cookie": cookie(entrance)} if let_in else {})
    request = HTTPRequest(f"{url.replace('http', 'ws')}/ws", headers=headers)

    async def connect() -> None:
        await websocket_connect(request, subprotocols=["bokeh", "x"])

    with pytest.raises(HTTPClientError, match="403"):
        asyncio.run(connect())


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no chromium on this machine")
def test_a_person_sees_what_is_published_and_nothing_comes_from_elsewhere(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.cli", "explore", "--port", str(free_port())]
    environment = {**os.environ, "FACTORCUBE_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            entrance = process.stdout.readline().split()[-1]
            url = entrance.partition("/enter")[0]
            with browser_tab(tmp_path / "profile") as tab:
                tab.load(entrance)
                listed = tab.shows("History of latest")
                tab.load(f"{url}/?version=us_large/ipca/latest&view=Portfolio")
                portfolio = tab.shows("by ticker")
                tab.load(f"{url}/?version=us_large/ipca/latest&view=Compare")
                tab.shows("compared")
                tab.value(COMPARE)
                compared = tab.shows("Metrics that differ")
                outside = {
                    one
                    for one in tab.requests
                    if not one.startswith((url, url.replace("http", "ws"), "data:", "blob:"))
                }
                assert outside == set()
                logged = [one["params"].get("entry", {}) for one in tab.complaints]
                # how figures are drawn without a GPU is the browser's own affair
                assert [one for one in logged if one.get("source") != "rendering"] == []
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
    for expected in ("us_large/ipca/", "us_large/market/", "passed", "<b>test</b>"):
        assert expected in listed
    for expected in ("Forecast and realised volatility", "What brings the volatility", "<img src=x onerror=a()>"):
        assert expected in portfolio
    for expected in ("us_large/market/", "Numbers on common labels", "factor_returns"):
        assert expected in compared


def test_a_book_that_is_uploaded_has_the_risk_of_the_direct_computation(root: Path) -> None:
    (ref,) = published.list_versions(Layout(root), "us_large", "ipca")
    opened, settings = open_risk(Layout(root), ref), Settings(root=root)
    held = weights_of_upload(b"ticker,weight\nT1,0.6\nT2,0.4\n", None, opened, settings)
    direct = RiskModel.open(root / "published/us_large/ipca/latest").risk({"T1": 0.6, "T2": 0.4})
    assert opened.risk(held.weights).volatility == pytest.approx(direct.volatility, rel=1e-12)
    with pytest.raises(SourceError, match="the book: holdings need one column of weight, value, shares"):
        weights_of_upload(b"ticker,size\nT1,1\n", None, opened, settings)
    with pytest.raises(SourceError, match="send at most"):
        weights_of_upload(b"x" * (books.UPLOAD_BYTES + 1), None, opened, settings)


def test_a_version_that_was_removed_meanwhile_is_said(root: Path) -> None:
    (made,) = make_versions(("pca",), n_dates=300)
    ref = published.publish(Layout(root), made.dataset, made.manifest, STATE)
    looked = explorer._Looked(Settings(root=root), Layout(root), ref)
    version = looked.version()
    published.remove(Layout(root), ref)
    for view in (explorer._version, explorer._portfolio, explorer._book):
        assert "no such published version" in explorer._told(partial(view, looked)).object
    assert "is missing" in explorer._told(lambda: charts.volatility(version, version.portfolios[0])).object


def test_what_is_not_installed_is_said(root: Path) -> None:
    code = "import sys; sys.modules['panel'] = None; sys.argv[1:] = ['explore']; import deploy.cli; deploy.cli.main()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "is not installed here; install both" in ended.stderr
