"""A real browser without a head, told what to do over its own protocol, for tests of pages that run scripts."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from tornado.websocket import websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


class Tab:
    """One page of a browser: what it asked for, what it logged, and what a script in it answers."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._sent = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        number = self._sent
        await self._connection.write_message(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await self._connection.read_message())
            if message.get("id") == number:
                return message.get("result", {})
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        kind, about = message.get("method"), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif kind == "Network.webSocketCreated":
            self.requests.append(about["url"])
        elif kind == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])

    async def open(self, url: str) -> None:
        for domain in ("Page", "Network", "Log", "Runtime", "DOM"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=script)).get("result", {}).get("value")

    async def text(self) -> str:
        """All text that the page shows, that of shadow trees included."""
        return await self.run(
            "(function read(node) { let said = '';"
            " if (node.nodeType === 3) return node.data + ' ';"
            " if (['STYLE', 'SCRIPT'].includes(node.nodeName)) return '';"
            " for (const child of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) said += read(child);"
            " return said })(document.body)"
        )

    async def shows(self, words: str, seconds: float = 30.0) -> str:
        """Wait until the page shows some words, and return its text; whether it does is for the test to say."""
        said = ""
        for _ in range(int(seconds / 0.2)):
            said = await self.text() or ""
            if words in said:
                break
            await asyncio.sleep(0.2)
        return said


def visit(profile: Path, act: Callable[[Tab], Awaitable[Any]]) -> Any:
    """Start a browser with a profile of its own, act on its page, and end it."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *_QUIET, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return asyncio.run(_visit(_page_of(profile / "DevToolsActivePort"), act))
    finally:
        process.terminate()
        process.wait(timeout=20)


def _page_of(port_file: Path) -> str:
    """Wait for a browser to write its port, and return where its first page listens."""
    for _ in range(300):
        if port_file.exists() and "\n" in port_file.read_text():
            break
        time.sleep(0.1)
    port = port_file.read_text().splitlines()[0]
    pages = [one for one in httpx.get(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page"]
    return pages[0]["webSocketDebuggerUrl"]


async def _visit(address: str, act: Callable[[Tab], Awaitable[Any]]) -> Any:
    connection = await websocket_connect(address, max_message_size=2**27)
    try:
        return await act(Tab(connection))
    finally:
        connection.close()
