"""What the site takes from elsewhere in the repository: pages beside what they speak of, and generated references.

Here belongs what mkdocs needs to make pages of them. Words of a page belong in the page.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "examples/recipes.md": "recipes.md",
    "deploy/runbook.md": "runbook.md",
    "deploy/security.md": "security.md",
}
"""Pages outside `docs`, and where they lie on the site."""

ASSETS = ("examples/*.yaml", "deploy/*.yaml")
"""Files that pages point at; they lie on the site as they lie in the repository."""

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside `docs`, and the references made from what is declared."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for pattern in ASSETS:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for page, text in {
        "adr/index.md": _decisions(),
        "reference/cli.md": _commands(),
        "reference/config.md": _config(),
        "reference/published.md": _published(),
        "reference/published.odcs.yaml": _contract(),
    }.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # mkdocs names them
    """Let links lead to pages of the site; what the site does not have stays as words."""
    on_site = {target: source for source, target in PAGES.items()}
    lies_at = PurePosixPath(on_site.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def led(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or "://" in target:
            return match[0]
        path = os.path.normpath(lies_at.parent / target).replace(os.sep, "/")
        uri = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is None:
            return match[0] if path.startswith("docs/") else match["text"]
        here = os.path.relpath(uri, PurePosixPath(page.file.src_uri).parent).replace(os.sep, "/")
        return f"{match['picture']}[{match['text']}]({here}{anchor})"

    return LINK.sub(led, markdown)


def _decisions() -> str:
    """List the decisions, by number."""
    rows = []
    for path in sorted((ROOT / "docs/adr").glob("0*.md")):
        number, title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(" ", 1)
        rows.append(f"| {number} | [{title}]({path.name}) |")
    head = ["# Decisions", "", "What costs something to reverse, and why it is as it is.", "", "| | |", "|---|---|"]
    return "\n".join([*head, *rows])


def _commands() -> str:
    """Write every command with its arguments and options, from the command line itself."""
    import typer
    from typer.cli import get_docs_for_click

    from deploy.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="factorcube", title="Command line")
    return re.sub(r"^\* `(.*?)`: ", r"- `\1`: ", text, flags=re.MULTILINE)


def _rows(properties: dict[str, Any], required: list[str]) -> Iterator[str]:
    for key, field in properties.items():
        words = field.get("description", "").split("\n\n")[0].replace("\n", " ")
        default = "**required**" if key in required else f"`{json.dumps(field.get('default'))}`"
        yield f"| `{key}` | {_kind(field)} | {_cell(default)} | {_cell(words)} |"


def _cell(text: str) -> str:
    """Text that does not end a cell of a table."""
    return text.replace("|", "\\|")


def _kind(field: dict[str, Any]) -> str:
    """Say what a key may hold, in a word or a link to the block that it is."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_kind(one) for one in field[key] if one.get("type") != "null"))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return field.get("type", "any")


def _config() -> str:
    """Every key of a config, from the schema that `factorcube schema` prints."""
    from schemas.spec import RunSpec

    schema = RunSpec.model_json_schema()
    head = "| key | holds | default | meaning |\n|---|---|---|---|"
    lines = [
        "# Configs",
        "",
        "Every key of a config file. `factorcube schema` prints the same as a JSON schema, for an editor.",
        "",
        "## The file",
        "",
        head,
        *_rows(schema["properties"], schema.get("required", [])),
    ]
    for name, block in sorted(schema["$defs"].items()):
        if "properties" not in block:
            continue
        words = block.get("description", "").split("\n\nParameters\n")[0]
        lines += ["", f"## {name}", "", words, "", head, *_rows(block["properties"], block.get("required", []))]
    return "\n".join(lines)


def _published() -> str:
    """Every variable of a published version, from the contract that writers are held to."""
    from schemas.contracts import VERSION
    from schemas.odcs import described

    lines = [
        "# Published data",
        "",
        "What a version holds, for readers with nothing but xarray; every variable carries these words as attributes.",
        "[The same as a data contract](published.odcs.yaml), with the weights of `factorcube allocate`, is what",
        "`factorcube schema --published` prints.",
        "",
        "| variable | dimensions | type | units | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, variable in VERSION.items():
        also = "" if variable.required else " *May be absent.*"
        words = f"{described(variable)}{also}"
        dims = ", ".join(variable.dims)
        lines.append(f"| `{name}` | {dims} | {variable.dtype} | {variable.units} | {_cell(words)} |")
    return "\n".join(lines)


def _contract() -> str:
    """Write the contract of what is published as `factorcube schema --published` does."""
    from schemas.odcs import published_contract

    return yaml.safe_dump(published_contract(), sort_keys=False)
