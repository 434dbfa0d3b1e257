"""What of a written page a browser would run beside the page's own scripts."""

from __future__ import annotations

from html.parser import HTMLParser

from reporting.interactive import scripts


class Page(HTMLParser):
    """What a browser would run: scripts that are not the page's own, handlers, frames, images and links to scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.live: list[str] = []
        self.title, self._in_title = "", False
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag == "script" and ("type", "application/json") not in attrs:
            self._script = ""
        if tag in {"iframe", "object", "embed", "base"}:
            self.live.append(tag)
        for name, value in attrs:
            target = (value or "").strip().lower()
            if name.startswith("on") or target.startswith("javascript:") or (tag == "img" and target == "x"):
                self.live.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""
        self._script = None if self._script is None else self._script + data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            if self._script not in scripts():
                self.live.append(f"script {self._script[:80]}")
            self._script = None
        self._in_title = False
