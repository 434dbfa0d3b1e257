"""The doors of a Prefect server that is started here: who may call it, and under which name.

Whoever may call Prefect's API runs commands as the owner of its workers, and loopback is open to every user of the
machine, and to every web page that one of them looks at. So the server asks for a password, which only the owner's
processes know; it answers to its own name alone (a page whose name is turned to 127.0.0.1 comes under another one), and
lets pages of no other origin read. The server of a run has a password of its own, which is never written.

Here belongs what is the same for the server of a run and for one that is operated. Starting and stopping does not.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ConfigError
from schemas.settings import Settings
from storage.files import private_folder, write_atomic

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
FILE = "auth"
"""Name of the file that keeps the password of an installation, in the folder of its server."""
NAMES = (HOST, "localhost")
"""What a server on loopback is called."""
_CLOSED_TO_OTHERS = 0o077


def new_password() -> str:
    """Return a password as Prefect asks for it: a user's name, which means nothing, and 256 random bits."""
    return f"factorcube:{secrets.token_hex(32)}"


def kept_password(folder: Path) -> tuple[str, Path]:
    """Return the password of the installation that keeps its server under a folder, and its file; made the first time.

    The folder, and what lies in it (the server's database and logs), is closed to other users as well.

    Raises
    ------
    ConfigError
        If others may read the password, or it is not one.
    ExecutionError
        If the folder cannot be closed.
    """
    path = folder / FILE
    again = "remove it and start again, which makes a new one"
    try:
        if path.exists() and _open_to_others(path):
            raise ConfigError(f"{path}: other users may have read the password; {again}")
        private_folder(folder)
        if not path.exists():
            write_atomic(path, new_password() + "\n", private=True)
        if _open_to_others(path):
            raise ConfigError(f"{folder}: this disk keeps no file private; set FACTORCUBE_ROOT to one that does")
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}; {again}") from None
    if not re.fullmatch(r"[^\s:]+:\S{16,}", password):
        raise ConfigError(f"{path}: does not hold USER:PASSWORD, of 16 characters or more; {again}")
    return password, path


def refusal(url: str, settings: Settings) -> str:
    """Return what is said to somebody whose password a server does not take."""
    return (
        f"the Prefect server at {url} refuses this client; set PREFECT_API_AUTH_STRING to its password (that of "
        f"`factorcube serve` lies in {settings.root / 'prefect' / FILE})"
    )


def _open_to_others(path: Path) -> bool:
    about = path.stat()
    return bool(about.st_mode & _CLOSED_TO_OTHERS) or about.st_uid != os.geteuid()


def server(port: int, password: str, *, log_level: str) -> tuple[list[str], Mapping[str, str]]:
    """Return the command of a server on loopback with closed doors, and what its environment needs.

    The password is in the environment, which other users cannot see; the command line they can.
    """
    origins = ",".join(f"http://{name}:{port}" for name in NAMES)
    variables = {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT__SERVER_FINAL": "1",
    }
    command = [
        sys.executable, "-m", "uvicorn", "deploy.doors:create_server", "--factory", "--host", HOST, "--port", str(port),
        "--log-level", log_level, "--lifespan", "on", "--no-server-header",
    ]  # fmt: skip
    return command, variables


def create_server() -> ASGIApp:
    """Return Prefect's server behind its doors; whatever its process writes is closed to other users."""
    from prefect.server.api.server import create_app

    app = create_app()  # may copy the UI's pages beside Prefect's code, which belongs to all
    os.umask(_CLOSED_TO_OTHERS)
    return under_its_own_name(app)


def refuse_taken(port: int) -> None:
    """Raise ConfigError if another process listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(
                f"port {port} of {HOST} is taken by another process; stop it, or choose another with --port"
            ) from None


def under_its_own_name(app: ASGIApp) -> ASGIApp:
    """Return an application that answers as 127.0.0.1 and localhost only, whatever name leads here."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(app, allowed_hosts=list(NAMES), www_redirect=False)
