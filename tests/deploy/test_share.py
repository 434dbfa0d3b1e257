"""Reading what is published over HTTP: a real server, real readers, and paths that try to get out."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
import xarray as xr
from obstore.store import HTTPStore
from ports import free_port
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from storing import publish_one
from zarr.storage import ObjectStore

from deploy.share import application, find, share
from schemas.errors import ConfigError
from schemas.settings import Settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    model = root / "published" / "us" / "ipca"
    for number, version in enumerate(("2020-01-02-aaaa", "2020-01-03-bbbb")):
        dataset = xr.Dataset({"omega": (("factor", "factor_"), np.full((3, 3), float(number)))})
        dataset.to_zarr(model / version, zarr_format=3, consolidated=True)
    (model / "latest").symlink_to("2020-01-02-aaaa")
    (model / "latest.json").write_text("{}")
    (model / ".latest.json.lock").write_text("process 1")
    (model / "writer.lock").write_text("process 1")
    (model / ".staging-1").mkdir()
    (model / ".staging-1" / "zarr.json").write_text("half")
    (model / "linked-lock").symlink_to(".latest.json.lock")
    (model / "loop").symlink_to("loop")
    (root / "partitions").mkdir()
    (root / "partitions" / "secret.json").write_text("secret")
    (model / "out").symlink_to("/etc")
    (model / "passwd").symlink_to("/etc/passwd")
    (model / "up").symlink_to("../../../partitions")
    (root / "published-too").mkdir()
    (root / "published-too" / "a.json").write_text("secret")
    (root / "reports").mkdir()
    (root / "reports" / "run.html").write_text("<h1>run</h1>")
    (root / "data_docs" / "us").mkdir(parents=True)
    (root / "data_docs" / "us" / "index.html").write_text("<h1>docs</h1>")
    return root


def _served(root: Path, **also: bool) -> Iterator[str]:
    port = free_port()
    app = application(Settings(root=root), **also)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    yield from _served(root)


def _raw(url: str, request: str) -> bytes:
    """Send a request as it is written: a client library would tidy the path first."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(("name", "value"), [("latest", 0.0), ("2020-01-03-bbbb", 1.0)])
def test_a_version_is_opened_without_factorcube(url: str, name: str, value: float) -> None:
    store = ObjectStore(HTTPStore(f"{url}/us/ipca/{name}", client_options={"allow_http": True}), read_only=True)
    with xr.open_zarr(store, consolidated=True) as dataset:
        assert (dataset.omega.load() == value).all()
        assert dataset.omega.shape == (3, 3)


def test_latest_is_sent_on_to_the_version_that_it_names(url: str) -> None:
    answer = httpx.head(f"{url}/us/ipca/latest/zarr.json", follow_redirects=True)
    assert answer.status_code == 200
    assert str(answer.url) == f"{url}/us/ipca/2020-01-02-aaaa/zarr.json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{url}/us/ipca/latest.json").json() == {}


@pytest.mark.parametrize(
    "path",
    [
        "/../partitions/secret.json",
        "/us/../../partitions/secret.json",
        "/..%2fpartitions/secret.json",
        "/us/ipca/..%2f..%2f..%2fpartitions%2fsecret.json",
        "/%2e%2e/partitions/secret.json",
        "/us/..%5c..%5cpartitions%5csecret.json",
        "/us/ipca/%252e%252e/x",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/us//ipca/latest.json",
        "/../published-too/a.json",
        "/us/ipca/passwd",
        "/us/ipca/out/passwd",
        "/us/ipca/up/secret.json",
        "/us/ipca/.latest.json.lock",
        "/us/ipca/writer.lock",
        "/us/ipca/linked-lock",
        "/us/ipca/.staging-1/zarr.json",
        "/us/ipca/loop",
        "/us/ipca/latest.json%00.html",
        f"/us/ipca/{'a' * 300}",
        "/us",
        "/us/ipca/latest",
        "/us/ipca/2020-01-02-aaaa/",
        "/-/reports/run.html",
        "/-/data_docs/us/index.html",
        "/-/../reports/run.html",
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    answer = _raw(url, f"GET {path}")
    assert answer.split(b" ", 2)[1] in {b"404", b"400"}, answer
    assert b"secret" not in answer
    assert b"root:" not in answer
    assert b"aaaa" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_nothing_can_be_written(url: str, root: Path, method: str) -> None:
    file = root / "published" / "us" / "ipca" / "latest.json"
    before = file.read_bytes()
    assert httpx.request(method, f"{url}/us/ipca/latest.json", content=b"x").status_code == 405
    assert file.read_bytes() == before


def test_reports_and_data_docs_are_served_where_they_are_asked_for(root: Path) -> None:
    server = _served(root, reports=True, data_docs=True)
    url = next(server)
    assert httpx.get(f"{url}/-/reports/run.html").text == "<h1>run</h1>"
    answer = httpx.get(f"{url}/-/data_docs/us/index.html")
    assert answer.text == "<h1>docs</h1>"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for path in ("/-/reports/../partitions/secret.json", "/-/data_docs/us", "/-/partitions/secret.json"):
        assert b" 404 " in _raw(url, f"GET {path}")
    next(server, None)


def test_the_index_lists_what_may_be_read_and_every_link_of_it_leads_there(root: Path, tmp_path: Path) -> None:
    publish_one(tmp_path)
    odd = "a&b <img src=x onerror=a()>.html"
    for folder in ("reports", "data_docs"):
        shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "reports" / odd).write_text("odd")
    (tmp_path / "reports" / "out.html").symlink_to("/etc/passwd")
    client = TestClient(application(Settings(root=tmp_path), reports=True, data_docs=True))
    page = client.get("/")
    assert "<img" not in page.text
    assert "us/ipca/2024-06-27-00000000, latest</a>" in page.text
    links = re.findall('href="([^"]*)"', page.text)
    assert len(links) == 4
    assert [client.get(link).status_code for link in links] == [200] * 4
    alone = TestClient(application(Settings(root=tmp_path))).get("/").text
    assert re.findall('href="([^"]*)"', alone) == ["/us/ipca/2024-06-27-00000000/manifest.json"]


def test_a_folder_that_is_itself_a_link_is_shared(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(root / "published")
    assert find(tmp_path / "linked", "us/ipca/latest.json") == root / "published/us/ipca/latest.json"
    assert find(tmp_path / "missing", "us") is None


def test_an_object_store_is_not_served_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "eu-west-1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="give readers read-only credentials"):
        application(Settings(root=tmp_path, store="s3://bucket/prefix"))


def test_the_command_answers_to_its_own_name_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ASGIApp] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **_: served.append(app))
    share(Settings(root=root), 8080, reports=True, data_docs=False)
    client = TestClient(served[0], base_url="http://127.0.0.1:8080")
    for host, expected in (("127.0.0.1:8080", 200), ("localhost", 200), ("evil.example:8080", 400)):
        assert client.get("/-/reports/run.html", headers={"Host": host}).status_code == expected
