"""Exploring what is published in a browser: a server that only reads, on loopback, for whoever was given its address.

Here belongs who may ask and what a page may load; what it shows is `deploy.explorer`. Panel's and Bokeh's own doors
stay shut where they are wider than that: a page under another name (DNS rebinding), a page of another origin that opens
the websocket or embeds this one, any user of the machine who was not told the token, Panel's handler that imports
whichever module a URL names, and whatever would be fetched from elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from bokeh.server.auth_provider import AuthProvider
from panel.io.server import Server, get_server
from tornado.httputil import HTTPHeaders
from tornado.web import OutputTransform, RequestHandler

from deploy import doors
from deploy.explorer import page
from schemas.settings import Settings
from tasks.books import UPLOAD_BYTES
from tasks.workspace import Workspace

_OTHER_NAMES = rf"(?!(?:{'|'.join(name.replace('.', '[.]') for name in doors.NAMES)})$).*"
_SHUT = r"/component-resources/.*|.*/autoload[.]js"
_MESSAGE_BYTES = 2 * UPLOAD_BYTES
"""Most bytes of one websocket message: an upload comes as text, a third longer, in one."""


def explore(settings: Settings, port: int, say: Callable[[str], None]) -> None:
    """Serve on 127.0.0.1 until Ctrl-C or SIGTERM.

    Parameters
    ----------
    settings : Settings
        Where the published versions lie.
    port : int
        Where to listen, on loopback.
    say : callable
        Shows a line to whoever has started it.

    Raises
    ------
    ConfigError
        If the port is taken, or the settings name no store that can be opened.
    """
    Workspace.of(settings)
    doors.refuse_taken(port)
    token = secrets.token_urlsafe(32)
    server = opened(settings, port, token)
    say(f"Explorer:  {entrance(port, token)}")
    say("Whoever has this address may read what is published. Ctrl-C ends it.")
    server.run_until_shutdown()


def entrance(port: int, token: str) -> str:
    """Return the address that lets a browser in."""
    return f"http://{doors.HOST}:{port}/enter?token={token}"


def opened(settings: Settings, port: int, token: str) -> Server:
    """Return the server, which listens, and answers once its loop runs.

    Parameters
    ----------
    settings : Settings
        Where the published versions lie.
    port : int
        Where to listen, on loopback.
    token : str
        What a browser must have brought to `entrance` once.
    """
    server = get_server(
        {"/": lambda: page(settings)},
        port=port,
        address=doors.HOST,
        title="factorcube",
        websocket_origin=[f"{name}:{port}" for name in doors.NAMES],
        websocket_max_message_size=_MESSAGE_BYTES,
        auth_provider=_Entrance(token, f"factorcube-{port}"),
        cookie_secret=secrets.token_hex(32),
    )
    application: Any = server._tornado  # noqa: SLF001 - Bokeh shows it by no other name
    application.add_handlers(_OTHER_NAMES, [(r".*", _Refused, {"status": 400})])
    application.add_handlers(r".*", [(_SHUT, _Refused, {"status": 404})])
    application.add_transform(_Headers)
    return server


class _Refused(RequestHandler):
    """No page: the host is not ours, or the door is shut."""

    def initialize(self, status: int) -> None:
        self._status = status

    def prepare(self) -> None:
        self.set_status(self._status)
        self.finish("refused\n")


class _Headers(OutputTransform):
    """What a page of ours may load and who may frame it, with every answer."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers["Content-Security-Policy"] = (
            "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; base-uri 'none'; "
            "form-action 'self'"
        )
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


class _Entrance(AuthProvider):
    """Let in whoever has brought the token: its cookie ends with the browser, and is signed by this server alone."""

    def __init__(self, token: str, cookie: str) -> None:
        self._cookie = cookie
        self._handler = type("_Enter", (_Enter,), {"token": token, "cookie": cookie})
        super().__init__()

    @property
    def get_user(self) -> Any:
        return lambda handler: handler.get_signed_cookie(self._cookie)

    @property
    def get_user_async(self) -> Any:
        return None

    @property
    def login_url(self) -> str:
        return "/enter"

    @property
    def get_login_url(self) -> Any:
        return None

    @property
    def login_handler(self) -> Any:
        return self._handler

    @property
    def logout_url(self) -> Any:
        return None

    @property
    def logout_handler(self) -> Any:
        return None


class _Enter(RequestHandler):
    token = cookie = ""

    def get(self) -> None:
        if not secrets.compare_digest(self.get_query_argument("token", "").encode(), self.token.encode()):
            self.set_status(403)
            self.finish("open the address that `factorcube explore` has printed: it holds the token\n")
            return
        self.set_signed_cookie(self.cookie, "reader", expires_days=None, httponly=True, samesite="Strict")
        self.redirect("/")
