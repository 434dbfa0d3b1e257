"""What the command line prints about published versions: lists, one in full, and what `latest` was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console

from deploy.console_tables import Column, print_table
from schemas.contracts import Manifest
from schemas.errors import CorruptionError
from schemas.refs import VersionRef
from storage import published
from storage.layout import VERSIONS, Layout


def versions_listed(layout: Layout, refs: Sequence[VersionRef]) -> list[dict[str, Any]]:
    """Describe versions in a line each, for a table or as JSON; a damaged one does not hide the others."""
    pinned = {model: published.pins(layout, *model) for model in {(ref.universe, ref.model) for ref in refs}}
    listed = []
    for ref in refs:
        line: dict[str, Any] = {
            "version": str(ref),
            "as_of": str(ref.as_of),
            "champion": ref.promoted,
            "pinned": pinned[ref.universe, ref.model].get(ref.version),
        }
        try:
            manifest = published.read_manifest(layout, ref)
        except CorruptionError as error:
            listed.append({**line, "made_by": None, "gate": "damaged", "total_r2": None, "error": str(error)})
            continue
        known = {
            "made_by": manifest.made_by,
            "gate": "passed" if manifest.gate.passed else "failed",
            "total_r2": manifest.metrics.get("total_r2_out_of_sample"),
            "error": None,
        }
        listed.append({**line, **known})
    return listed


def cells(line: dict[str, Any]) -> list[str]:
    """Return a line of `versions_listed` as text, in the order in which it is read."""
    return [
        line["version"],
        line["as_of"],
        line["made_by"] or "-",
        number(line["total_r2"], ".4f"),
        line["gate"],
        "yes" if line["champion"] else "",
        line["pinned"] or "",
    ]


def print_versions(console: Console, layout: Layout, refs: Sequence[VersionRef]) -> None:
    """Print versions, the champion of each model and the pinned ones marked."""
    if not refs:
        where = layout.store.locate(VERSIONS)
        console.print(
            f"nothing is published under {where}; run `factorcube run CONFIG.yaml` first", markup=False, soft_wrap=True
        )
        return
    listed = versions_listed(layout, refs)
    columns = (
        "version",
        Column("as of", drop=1),
        Column("made by", drop=2),
        Column("total R2 out of sample", drop=3),
        "gate",
        "latest",
        Column("pinned", text=True),
    )
    print_table(console, columns, [cells(line) for line in listed])
    damaged = [line["error"] for line in listed if line["error"]]
    for error in damaged:
        console.print(error, style="red", markup=False, highlight=False, soft_wrap=True)


def print_version(console: Console, layout: Layout, ref: VersionRef) -> None:
    """Describe one version: what it is made from, the gate's word, its metrics and its variables."""
    manifest = published.read_manifest(layout, ref)
    console.print(f"[bold]{ref}[/]", highlight=False)
    for name, value in facts(layout, ref, manifest).items():
        console.print(f"  {name:9s} {value}", soft_wrap=True, highlight=False, markup=False)
    if manifest.gate.criteria:
        _print_criteria(console, manifest)
    metrics = [(metric, number(found, ".4f")) for metric, found in manifest.metrics.items()]
    print_table(console, ("metric", "value"), metrics)
    variables = [
        (str(key), ", ".join(map(str, array.dims)), str(array.attrs.get("long_name", "")))
        for key, array in published.open_version(layout, ref).data_vars.items()
    ]
    columns = ("variable", Column("dimensions", text=True, drop=1), Column("what it is", text=True))
    print_table(console, columns, variables)


def print_champions(console: Console, champions: dict[str, dict[str, Any]], moment: datetime) -> None:
    """Print what `latest` was at a moment, model by model."""
    console.print(f"[bold]latest[/] at {moment:%Y-%m-%d %H:%M:%S %Z}", highlight=False)
    rows: list[tuple[str, ...]] = []
    for model, found in champions.items():
        if found["version"] is None:
            rows.append((model, "none yet"))
            continue
        remark = "still latest" if found["still"] else ("" if found["there"] else "removed since")
        rows.append((model, found["version"], found["promoted_at"], found["by"], found["reason"], remark))
    columns = (
        "model",
        "version",
        Column("promoted", drop=3),
        Column("by", drop=2),
        Column("why", text=True, drop=1),
        Column("", text=True),
    )
    print_table(console, columns, rows)


def champions_at(layout: Layout, models: Sequence[tuple[str, str]], moment: datetime) -> dict[str, dict[str, Any]]:
    """Return what `latest` was at a moment by model: version, when, by whom, why, and whether it is still there."""
    found: dict[str, dict[str, Any]] = {}
    for universe, model in models:
        ref = published.latest_at(layout, universe, model, moment)
        if ref is None:
            found[f"{universe}/{model}"] = {"version": None}
            continue
        entries = [one for one in published.promotions(layout, universe, model) if one.promoted_at <= moment]
        found[f"{universe}/{model}"] = {
            "version": ref.version,
            "promoted_at": f"{entries[-1].promoted_at:%Y-%m-%d %H:%M:%S} UTC",
            "by": entries[-1].by,
            "reason": entries[-1].reason,
            "still": ref.promoted,
            "there": published.find(layout, universe, model, ref.version) is not None,
        }
    return found


def number(value: float | None, form: str) -> str:
    """Write a number; a dash for a missing one."""
    return "-" if value is None else format(value, form)


def facts(layout: Layout, ref: VersionRef, manifest: Manifest) -> dict[str, Any]:
    """Return what a person asks first about a version, in the order of asking."""
    entries = [one for one in published.promotions(layout, ref.universe, ref.model) if one.version == ref.version]
    promoted = "; ".join(f"{one.promoted_at:%Y-%m-%d %H:%M:%S} UTC by {one.by} ({one.reason})" for one in entries)
    pinned = published.pins(layout, ref.universe, ref.model).get(ref.version)
    refits = f"{len(manifest.refits)}" + (f", {manifest.refits[0]} to {manifest.refits[-1]}" if manifest.refits else "")
    gate = manifest.gate
    compared = f"; against {gate.champion} on {gate.dates} dates" if gate.champion else ""
    why = "" if gate.passed and gate.criteria else f": {'; '.join(gate.reasons)}"
    found = {
        "as of": manifest.as_of,
        "latest": "yes" if ref.promoted else "no",
        "promoted": promoted or "never",
        "pinned": pinned,
        "created": f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "made by": manifest.made_by + (f" of {manifest.parent}" if manifest.parent else ""),
        "model": f"{manifest.kind} {manifest.params}",
        "refits": refits,
        "snapshot": manifest.snapshot_id,
        "inputs": manifest.input_digest[:16],
        "code": manifest.code_version,
        "config": manifest.config_digest[:16],
        "sources": ", ".join(f"{source.name} ({source.sha256[:12]})" for source in manifest.sources),
        "gate": ("passed" if gate.passed else "failed") + compared + why,
        "path": published.locate(layout, ref),
    }
    return {name: value for name, value in found.items() if value is not None}


def criteria(manifest: Manifest) -> list[list[str]]:
    """Return what the gate asked for: a row each of criterion, value, that of the champion, limit and outcome."""
    return [
        [
            one.name,
            number(one.value, ".4f"),
            number(one.champion, ".4f"),
            one.limit,
            "passed" if one.passed else "failed",
        ]
        for one in manifest.gate.criteria
    ]


def _print_criteria(console: Console, manifest: Manifest) -> None:
    columns = (
        Column("criterion", text=True),
        "value",
        Column("champion", drop=1),
        Column("asked for", text=True),
        "",
    )
    print_table(console, columns, criteria(manifest))
