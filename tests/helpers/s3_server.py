"""An S3-compatible server on loopback (moto's), which can lose answers as a network does.

One request is handled at a time: moto itself looks at a condition and writes in two steps, which S3 does in one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclass
class S3Server:
    """A running server; `requests` holds the method and path of every request."""

    port: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    _faults: list[Callable[[str, str], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Silent)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        """Variables with which clients reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test-key-id",
            "AWS_SECRET_ACCESS_KEY": "planted-secret",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> str:
        """Make a bucket; return its URL."""
        env = self.env
        client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def lose(self, method: str, suffix: str, *, times: int = 1, performed: bool = True) -> None:
        """Answer the next requests of this kind with 503, after performing them or instead."""
        left = times

        def fault(asked: str, path: str) -> str:
            nonlocal left
            if left and asked == method and path.endswith(suffix):
                left -= 1
                return "performed" if performed else "dropped"
            return ""

        self._faults.append(fault)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests.append((method, path))
            what = next(filter(None, (fault(method, path) for fault in self._faults)), "")
            if what != "dropped":
                answer: Iterable[bytes] = self._application(environ, start_response if not what else _ignore)
            if what:
                environ["wsgi.input"].read(0 if what == "performed" else int(environ.get("CONTENT_LENGTH") or 0))
                start_response("503 Slow Down", [("Content-Length", "0")])
                return []
            return answer


class _Silent(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Say nothing: a version is a hundred requests."""


def _ignore(*_: Any, **__: Any) -> Callable[[bytes], None]:
    return lambda _: None
