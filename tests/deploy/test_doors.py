"""Who may call a Prefect server that is started here; a real one, with real callers, is in `test_serve`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
    get_current_settings,
    temporary_settings,
)
from starlette.testclient import TestClient

from deploy import doors
from deploy.api import prefect_server, require_server
from schemas.errors import ConfigError, ExecutionError


def test_the_server_takes_its_password_its_name_and_its_pages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect checks the password before anything else: no database is needed to be refused."""
    masks: list[int] = []
    monkeypatch.setattr(os, "umask", masks.append)
    password = doors.new_password()
    _, closed = doors.server(4200, password, log_level="error")
    secret, origins = PREFECT_SERVER_API_AUTH_STRING, PREFECT_SERVER_CORS_ALLOWED_ORIGINS
    with temporary_settings({each: closed[each.name] for each in (secret, origins)}):
        client = TestClient(doors.create_server(), base_url="http://127.0.0.1:4200")
    assert masks == [0o077], "the database is closed to others"
    user, word = password.split(":")
    for auth, expected in ((None, 401), ((user, "0" * 64), 401), ((user, word), 200)):
        assert client.get("/api/admin/version", auth=auth).status_code == expected
    for host, expected in (("evil.example:4200", 400), ("127.0.0.1.evil.example", 400), ("localhost:4200", 200)):
        answer = client.get("/api/admin/version", headers={"Host": host}, auth=(user, word))
        assert answer.status_code == expected, host
    for origin in ("http://evil.example", "http://127.0.0.1:8000", "null"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.options("/api/deployments/", headers=asked).status_code == 400
        answer = client.get("/api/admin/version", headers={"Origin": origin}, auth=(user, word))
        assert "access-control-allow-origin" not in answer.headers
    answer = client.get("/api/admin/version", headers={"Origin": "http://localhost:4200"}, auth=(user, word))
    assert answer.headers["access-control-allow-origin"] == "http://localhost:4200"


def test_a_password_is_made_once_and_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "prefect"
    folder.mkdir(mode=0o755)
    (folder / "prefect.db").touch(0o644)
    password, path = doors.kept_password(folder)
    assert doors.kept_password(folder) == (password, path)
    assert path.read_text() == f"{password}\n"
    assert [each.stat().st_mode & 0o777 for each in (folder, path, folder / "prefect.db")] == [0o700, 0o600, 0o600]
    assert doors.new_password() != password
    command, variables = doors.server(4200, password, log_level="warning")
    assert password.split(":")[1] not in " ".join(command)
    assert variables["PREFECT_SERVER_API_AUTH_STRING"] == password


def test_a_folder_of_somebody_else_keeps_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prefect").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    with pytest.raises(ExecutionError, match="belongs to another user"):
        doors.kept_password(tmp_path / "prefect")
    assert not list((tmp_path / "prefect").iterdir())


@pytest.mark.parametrize(
    ("mode", "content", "message"),
    [
        (0o644, None, "other users may have read the password; remove it"),
        (0o600, "admin:short", "does not hold USER:PASSWORD, of 16 characters or more"),
        (0o600, "", "does not hold USER:PASSWORD"),
    ],
)
def test_a_password_that_is_none_is_refused(tmp_path: Path, mode: int, content: str | None, message: str) -> None:
    _, path = doors.kept_password(tmp_path / "prefect")
    if content is not None:
        path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        doors.kept_password(tmp_path / "prefect")


def test_the_server_of_a_run_is_given_a_password_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Mapping[str, str]] = []

    @contextmanager
    def processes(_: float) -> Iterator[Callable[..., SimpleNamespace]]:
        def start(command: list[str], variables: Mapping[str, str], log: Path) -> SimpleNamespace:
            started.append(variables)
            assert variables["PREFECT_SERVER_API_AUTH_STRING"].split(":")[1] not in " ".join(command)
            return SimpleNamespace(poll=lambda: None)

        yield start

    monkeypatch.setattr("deploy.api.processes", processes)
    for name in ("await_health", "_drain"):
        monkeypatch.setattr(f"deploy.api.{name}", lambda *_: None)
    for _ in range(2):
        with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server() as serving:
            serving()
            given = get_current_settings().to_environment_variables(exclude_unset=True)
            port = given["PREFECT_API_URL"].removeprefix("http://127.0.0.1:").removesuffix("/api")
            assert given["PREFECT_API_AUTH_STRING"] == started[-1]["PREFECT_SERVER_API_AUTH_STRING"]
            allowed = started[-1]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
            assert allowed == f"http://127.0.0.1:{port},http://localhost:{port}"
    passwords = {variables["PREFECT_SERVER_API_AUTH_STRING"] for variables in started}
    assert len(passwords) == 2
    assert all(len(password) > 64 for password in passwords)


def test_a_client_without_the_password_is_told_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no password of this client says so to all calls but that of its health."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"true" if self.path.endswith("/health") else b"{}"
            self.send_response(200 if content == b"true" else 401)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path))
    refusing = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{refusing.server_port}/api"
    try:
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ExecutionError) as told:
            require_server()
    finally:
        refusing.shutdown()
        refusing.server_close()
    assert str(told.value) == (
        f"the Prefect server at {url} refuses this client; set PREFECT_API_AUTH_STRING to its password (that of "
        f"`factorcube serve` lies in {tmp_path}/prefect/auth)"
    )
