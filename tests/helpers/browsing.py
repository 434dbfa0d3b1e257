"""A page in a real browser, driven through a pipe: what it logs, what it asks the network for, what it looks like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--proxy-server=127.0.0.1:9",
    "--remote-debugging-pipe",
)  # fmt: skip

_TEXT = (
    "(function read(node) { let said = '';"
    " if (node.nodeType === 3) return node.data + ' ';"
    " if (['STYLE', 'SCRIPT'].includes(node.nodeName)) return '';"
    " for (const child of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) said += read(child);"
    " return said })(document.body)"
)
"""All text that a page shows, that of shadow trees included."""


class Tab:
    """One tab: ask it by the methods of the DevTools protocol; events are kept as they come."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer, self._sent = reader, writer, 0
        self.session = ""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self._sent, "method": method, "params": params, **session}
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while (answer := self._read()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the page; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        """Open a page at a width and wait until it has stood still for a while."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.load(page)
        self.settle()

    def load(self, page: Path | str) -> None:
        """Open a file or an address and wait until all that it has is there."""
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        there = "document.readyState === 'complete' ? done() : addEventListener('load', done)"
        self.value(f"new Promise((done) => {there}).then(() => new Promise((done) => setTimeout(done, 500)))")

    def shows(self, words: str, seconds: float = 30.0) -> str:
        """Wait until the page shows some words, and return its text; whether it does is for the test to say."""
        said, end = "", time.monotonic() + seconds
        while words not in said and time.monotonic() < end:
            time.sleep(0.2)
            said = self.value(_TEXT) or ""
        return said

    @property
    def requests(self) -> set[str]:
        """Addresses that pages have asked for."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        sockets = [event["params"] for event in self.events if event.get("method") == "Network.webSocketCreated"]
        return {one["request"]["url"] for one in sent} | {one["url"] for one in sockets}

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Whatever the browser logs of pages, exceptions, and what their scripts say as errors or warnings."""
        return [
            event
            for event in self.events
            if event.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}
            or (event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] in {"error", "warning"})
        ]

    def settle(self) -> None:
        """Wait until the figures of the panel that is shown have been drawn."""
        look = "document.querySelector('.panel:not([hidden]) .plot')?.childElementCount"
        self.value(
            f"new Promise((done) => {{ const look = () => {look} ? setTimeout(done, 500) : setTimeout(look, 50);"
            " setTimeout(done, 20000); look(); })"
        )

    def _read(self) -> dict[str, Any]:
        text = b""
        while (byte := self._reader.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)


@contextmanager
def browser_tab(profile: Path) -> Iterator[Tab]:
    """Start a browser of its own without any network, and close it."""
    assert BROWSER is not None
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    command = f'exec "$0" "$@" 3<&{in_read} 4>&{out_write}'
    process = subprocess.Popen(
        ["bash", "-c", command, BROWSER, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(in_read, out_write),
        stderr=subprocess.DEVNULL,
    )
    os.close(in_read)
    os.close(out_write)
    try:
        with os.fdopen(out_read, "rb") as reader, os.fdopen(in_write, "wb") as writer:
            tab = Tab(reader, writer)
            target = tab.ask("Target.createTarget", url="about:blank")["targetId"]
            tab.session = tab.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Runtime", "Log", "Network", "Page"):
                tab.ask(f"{domain}.enable")
            yield tab
    finally:
        process.kill()
        process.wait()
