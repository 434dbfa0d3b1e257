"""What of a written page a browser would run."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would run: scripts, handlers, frames, images and links to scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.live: list[str] = []
        self.title, self._in_title = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag in {"script", "iframe", "object", "embed", "base"}:
            self.live.append(tag)
        for name, value in attrs:
            target = (value or "").strip().lower()
            if name.startswith("on") or target.startswith("javascript:") or (tag == "img" and target == "x"):
                self.live.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.title += data if self._in_title else ""

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._in_title = False
