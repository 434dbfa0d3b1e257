"""Secrets of the settings are planted, used and provoked to leak; then all that was written or said is searched."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from ports import free_port
from small_market import make_market, write_config

REPOSITORY = Path(__file__).resolve().parents[2]
SQL = "sql+pass/word&planted"
WEBHOOK = "webhook-token-planted"
AWS = "aws/secret+key=planted"
AUTH = "auth-password-planted"
QUICK = {"models": [{"kind": "market"}], "walk_forward": {"first": "2016-06-30", "every": "year"}}


def _forms() -> dict[bytes, str]:
    """Every way in which a secret may be written, with the name of the secret."""
    secrets = {"SQL password": SQL, "webhook": WEBHOOK, "AWS key": AWS, "Prefect password": AUTH}
    forms = {
        form.encode(): name for name, text in secrets.items() for form in (text, quote(text), quote(text, safe=""))
    }
    forms |= {repr(text)[1:-1].replace("/", "\\/").encode(): name for name, text in secrets.items()}
    forms[base64.b64encode(f"admin:{AUTH}".encode()).rstrip(b"=")] = "Prefect password, as it is sent"
    return forms


def _leaks(what: str, content: bytes) -> list[str]:
    return [f"{name} in {what}" for form, name in _forms().items() if form in content]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Run a Prefect server that asks for the planted password, its database and logs under a folder."""
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_API_AUTH_STRING": f"admin:{AUTH}",
        "PREFECT_API_AUTH_STRING": f"admin:{AUTH}",
        "PREFECT_LOGGING_SERVER_LEVEL": "INFO",  # at DEBUG its web server logs the password of every client
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/health", process)
            yield f"http://127.0.0.1:{port}/api"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError("the Prefect server did not start")


class _Installation:
    """Runs commands with the planted secrets in the environment, and keeps what they say."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.said: dict[str, bytes] = {}
        self._environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "client"),
            "PREFECT_API_URL": api,
            "PREFECT_API_AUTH_STRING": f"admin:{AUTH}",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "FACTORCUBE_ROOT": str(folder / "root"),
            "FACTORCUBE_CONFIGS": str(folder),
            "FACTORCUBE_SQL_URL": f"postgresql://me:{quote(SQL, safe='')}@127.0.0.1:9/x",
            "FACTORCUBE_ALERT_WEBHOOK": f"https://127.0.0.1:9/{WEBHOOK}",
            "AWS_ACCESS_KEY_ID": "key-id",
            "AWS_SECRET_ACCESS_KEY": AWS,
            "AWS_REGION": "eu-west-1",
        }

    def run(self, name: str, *command: str, **changes: str) -> int:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env={**self._environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=300,
        )
        self.said[name] = done.stdout
        return done.returncode

    def factorcube(self, name: str, *arguments: str, **changes: str) -> int:
        return self.run(name, "-m", "deploy.cli", *arguments, **changes)


_UNFORESEEN = """
from schemas.settings import load_settings
settings = load_settings()
print(settings, repr(settings), settings.model_dump(), settings.model_dump_json())
raise RuntimeError(f"something that nobody foresaw, with {settings!r}")
"""


@pytest.mark.slow
def test_no_secret_appears_anywhere(tmp_path: Path) -> None:
    make_market().write_parquet(tmp_path / "prices.parquet")
    good = write_config(tmp_path, QUICK)
    (tmp_path / "sql").mkdir()
    query = {"shape": "long_prices", "origin": {"kind": "sql", "query": "SELECT * FROM nothing"}}
    bad = write_config(tmp_path / "sql", {**QUICK, "universe": "other", "data": query})
    with _server(tmp_path) as api:
        installation = _Installation(tmp_path, api)
        assert installation.factorcube("run", "run", str(good)) == 0, installation.said["run"][-3000:].decode()
        assert installation.factorcube("show", "show") == 0
        assert installation.factorcube("deploy", "deploy", "--config", "config") == 0, installation.said[
            "deploy"
        ].decode()
        lite = f"sqlite:////{tmp_path}/{quote(SQL, safe='')}/market.db?password={quote(SQL, safe='')}"
        for name, url in {
            "no driver": installation._environment["FACTORCUBE_SQL_URL"],
            "no database": lite,
            "bad option": f"sqlite:///{tmp_path}/market.db?nonsense={quote(SQL, safe='')}",
            "no URL": f"{SQL}@nowhere",
            "link-local": f"postgresql://me:{quote(SQL, safe='')}@169.254.169.254/x",
        }.items():
            assert installation.factorcube(name, "run", str(bad), FACTORCUBE_SQL_URL=url) == 1, name
            assert b"error: " in installation.said[name]
            assert b"Traceback" not in installation.said[name].rsplit(b"error: ", 1)[1]
        store = {"FACTORCUBE_STORE": "s3://bucket/prefix", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
        assert installation.factorcube("no store", "run", str(good), **store) == 1
        bad_webhook = {"FACTORCUBE_ALERT_WEBHOOK": f"http://example.com/{WEBHOOK}"}
        assert installation.factorcube("bad webhook", "run", str(good), **bad_webhook) == 1
        assert installation.factorcube("doctor", "doctor", "--json", **store) == 1
        wrong = {"PREFECT_API_AUTH_STRING": f"other:{AUTH}"}
        assert installation.factorcube("refused", "run", str(good), **wrong) != 0
        assert installation.run("unforeseen", "-c", _UNFORESEEN) == 1
        counted = httpx.post(f"{api}/artifacts/count", json={}, auth=("admin", AUTH))
    assert counted.json() > 0
    leaks = [leak for name, said in installation.said.items() for leak in _leaks(f"what '{name}' said", said)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        leaks += _leaks(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    names = {path.name for path in files}
    assert {"prefect.db", "manifest.json", "server.log"} <= names
    assert any(name.endswith(".html") for name in names)
    assert leaks == []


def test_the_search_finds_what_it_searches_for() -> None:
    sent = base64.b64encode(f"admin:{AUTH}".encode())
    assert _leaks("x", b"a " + SQL.encode() + b" b") == ["SQL password in x"]
    assert _leaks("x", quote(SQL, safe="").encode()) == ["SQL password in x"]
    assert _leaks("x", b"Authorization: Basic " + sent) == ["Prefect password, as it is sent in x"]
    assert _leaks("x", b"nothing") == []
