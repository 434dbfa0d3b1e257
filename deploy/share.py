"""Reading what is published over HTTP, and nothing else: GET and HEAD of whole files under a few folders.

Here belongs what may be read by whom asks. Who may ask is decided by whoever lets requests through to this machine: it
listens on loopback, and knows no users.

``/`` lists what there is. ``/<universe>/<model>/<version>/...`` are the published versions. Reports and Data Docs,
where they are asked for, lie under ``/-/reports`` and ``/-/data_docs``: no universe is called ``-``. A request through
``latest`` is sent on to the version that it names now, so that a reader who keeps the final URL keeps one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from deploy.doors import HOST, under_its_own_name
from schemas.base import printable
from schemas.errors import ConfigError
from schemas.settings import Settings, load_settings
from storage.versions import list_versions
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from storage.layout import Layout

_LATEST = "latest"
_INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>factorcube</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em; overflow-wrap: anywhere }}</style>
<h1>Published</h1>
{sections}
</html>
"""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; connect-src 'none'; frame-ancestors 'none'",
}


def application(settings: Settings, *, reports: bool = False, data_docs: bool = False) -> Starlette:
    """Return the read-only application.

    Parameters
    ----------
    settings : Settings
        Where the published versions lie.
    reports, data_docs : bool
        Whether these are served too; they show more of the data than the versions do.

    Raises
    ------
    ConfigError
        If versions lie on an object store, which serves them itself.
    """
    layout = Workspace.of(settings).layout
    folders = {"": _published(layout)}
    if reports:
        folders["-/reports"] = settings.root / "reports"
    if data_docs:
        folders["-/data_docs"] = settings.root / "data_docs"

    def serve(request: Request) -> Response:
        path = request.scope["path"].removeprefix("/")
        return _answer(folders, path) if path else HTMLResponse(_index(layout, folders), headers=_HEADERS)

    return Starlette(routes=[Route("/{path:path}", serve, methods=["GET"])])


def create() -> Starlette:
    """Return the application of the settings in the environment, for a server that is told where to listen."""
    return application(load_settings())


def share(settings: Settings, port: int, *, reports: bool, data_docs: bool) -> None:
    """Serve on 127.0.0.1, and under no other name but localhost, until interrupted."""
    import uvicorn

    app = under_its_own_name(application(settings, reports=reports, data_docs=data_docs))
    uvicorn.run(app, host=HOST, port=port, log_level="warning", server_header=False)


def find(folder: Path, path: str) -> Path | None:
    """Return the file that a request for a path may read; None if there is none.

    Parameters
    ----------
    folder : Path
        What is shared. Links inside it are followed as long as they stay inside.
    path : str
        The decoded path of a URL, without its first slash.
    """
    parts = path.split("/")
    if any(not _visible(part) for part in parts):
        return None
    try:
        base = folder.resolve(strict=True)
        file = base.joinpath(*parts).resolve(strict=True)
        inside = file.relative_to(base).parts
    except (OSError, ValueError, RuntimeError):  # missing, outside, a name too long, a loop of links
        return None
    return file if file.is_file() and all(map(_visible, inside)) else None


def _visible(part: str) -> bool:
    """Hidden files, locks, and whatever could mean another folder have no part in a path."""
    return bool(part) and not part.startswith(".") and not part.endswith(".lock") and not set(part) & set("\\\0:")


def _answer(folders: Mapping[str, Path], path: str) -> Response:
    for prefix, folder in folders.items():
        if prefix and not path.startswith(f"{prefix}/"):
            continue
        if not prefix and path.startswith("-/"):
            continue
        file = find(folder, path.removeprefix(f"{prefix}/") if prefix else path)
        if file is None:
            break
        if not prefix and _LATEST in path.split("/")[:-1]:
            return RedirectResponse("/" + file.relative_to(folder.resolve()).as_posix(), 307, _HEADERS)
        return FileResponse(file, headers=_HEADERS)
    return PlainTextResponse("not found\n", 404, _HEADERS)


def _index(layout: Layout, folders: Mapping[str, Path]) -> str:
    """Write a page of links: the manifest of each version, and the reports and Data Docs that are served."""
    refs = list_versions(layout)
    links = {
        "Versions": [(f"{ref}{', latest' if ref.promoted else ''}", f"{ref}/manifest.json") for ref in refs],
        "Reports": _pages(folders, "-/reports", "**/*.html"),
        "Data Docs": _pages(folders, "-/data_docs", "*/index.html"),
    }
    sections = [
        f"<h2>{title}</h2>\n<ul>\n"
        + "\n".join(f'<li><a href="/{quote(target)}">{escape(printable(text))}</a>' for text, target in found)
        + "\n</ul>"
        for title, found in links.items()
        if found
    ]
    return _INDEX.format(sections="\n".join(sections) or "<p>Nothing is published yet.</p>")


def _pages(folders: Mapping[str, Path], prefix: str, pattern: str) -> list[tuple[str, str]]:
    """Return names and targets of the pages of a folder, if it is served; only those that a request may read."""
    folder = folders.get(prefix)
    names = [] if folder is None else sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return [(name, f"{prefix}/{name}") for name in names if folder is not None and find(folder, name)]


def _published(layout: Layout) -> Path:
    try:
        return layout.store.path("published")
    except ConfigError:
        raise ConfigError(
            "published versions lie on an object store, which can be read directly; give readers read-only credentials"
        ) from None
