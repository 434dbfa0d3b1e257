"""The one commit of an ingest or a correction: derive the cube from a record that was checked, check it, write both.

Here belongs what becomes visible and what the history says of it. Which record it is belongs in `tasks.delivering`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from models.characteristics.cube import derive_cube
from models.portfolios.holdings import unknown_shares
from schemas.base import digest
from schemas.checks import CheckReport
from schemas.contracts import CUBE, Ingest, validate
from schemas.errors import CubeError
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import Holdings, Recipe
from storage.cube import Commit, Cube
from storage.files import user
from storage.work import Kind
from tasks.artifacts import publish_check_table
from tasks.assets import cube_made
from tasks.delivering import State, withdrawn
from tasks.describing import described, refuse_blocked, sessions_of
from tasks.events import announce_failed_checks, announce_snapshot
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Change:
    """What the history says of one commit.

    Attributes
    ----------
    key : str
        Names the ingest or correction.
    message : str
        Why, in a line.
    span : tuple of date
        First and last date that it speaks of.
    ingests : tuple of Ingest
        All of which something is left, this one among them.
    facts : dict
        More, as JSON.
    """

    key: str
    message: str
    span: tuple[date, date]
    ingests: tuple[Ingest, ...]
    facts: dict[str, Any]


def commit_record(
    space: Workspace,
    universe: str,
    state: State,
    record: xr.Dataset,
    recipe: Recipe,
    report: CheckReport,
    change: Change,
    settings: Settings,
) -> SnapshotRef:
    """Derive a cube from a record that was checked, check it too, and commit both, into a new repository if need be.

    Raises
    ------
    CheckError
        If a check of the cube blocks the ingest; nothing was written.
    ConflictError
        If the cube is no longer in the state that the record was made from; nothing was written.
    """
    from tasks import checking

    derived = derived_of(record, recipe, report)
    docs = space.layout.data_docs(universe)
    late = checking.check_derived(
        derived, previous=None, frequency=recipe.frequency, overrides=recipe.checks, data_docs=docs
    )
    whole = checking.merge([report, late])
    derived_key = key(Stage.INGEST.code(), checks=change.key, step="derived", snapshot=state.snapshot_id)
    space.work.put_json(Kind.CHECKS, derived_key, portable(whole, settings))
    publish_check_table(universe, whole)
    announce_failed_checks(universe, late)
    refuse_blocked(late)
    metadata = {
        "who": user(),
        "ingest_key": change.key,
        "checks_key": derived_key,
        "first_date": f"{change.span[0]}",
        "last_date": f"{change.span[1]}",
        "recipe": recipe.model_dump(mode="json"),
        "ingests": [one.model_dump(mode="json") for one in change.ingests],
        **withdrawn(state.record, record),
        **_uncovered(recipe, derived),
        **change.facts,
    }
    cube = Cube.open_or_create(space.layout, universe)
    commit = cube.replace(derived, record, onto=state.snapshot_id, message=change.message, metadata=metadata)
    return _recorded(space, universe, cube, state, commit, change, derived, derived_key)


def _uncovered(recipe: Recipe, derived: xr.Dataset) -> dict[str, Any]:
    """Say which tickers of holdings the cube does not have, and the largest share of each; empty if there are none."""
    found: dict[str, dict[str, float]] = {}
    for item in recipe.portfolios:
        if isinstance(item, Holdings):
            dated = {pd.Timestamp(one.as_of): one.weights for one in item.rebalances}
            shares = unknown_shares(dated, derived.indexes["ticker"])
            if len(shares):
                found[item.name] = {str(ticker): float(share) for ticker, share in shares.items()}
                run_logger().warning(
                    "portfolio %s holds %d ticker(s) that the universe does not have, the others stand for them: %s",
                    item.name, len(shares), ", ".join(f"{name} ({share:.2%})" for name, share in shares.items()),
                )  # fmt: skip
    return {"uncovered": found} if found else {}


def _recorded(
    space: Workspace,
    universe: str,
    cube: Cube,
    state: State,
    commit: Commit,
    change: Change,
    derived: xr.Dataset,
    derived_key: str,
) -> SnapshotRef:
    note = "" if commit.changed else " (unchanged)"
    run_logger().info("cube %s: snapshot %s%s", universe, commit.snapshot_id, note)
    ref = SnapshotRef(
        universe=universe,
        snapshot_id=commit.snapshot_id,
        ingest_key=change.key,
        changed=commit.changed,
        checks_key=derived_key,
    )
    space.work.put_json(Kind.INGESTS, ingest_record(change.key, commit.snapshot_id), ref.model_dump(mode="json"))
    announce_snapshot(ref, None if state.snapshot_id is None else cube.open_dataset(state.snapshot_id), derived)
    cube_made(ref)
    return ref


def derived_of(record: xr.Dataset, recipe: Recipe, report: CheckReport) -> xr.Dataset:
    """Derive the variables of a cube from a record, without what a report keeps out."""
    from tasks import checking

    given = described(record, recipe)
    clean, _ = checking.apply_quarantine(given.market, report)
    excluded = checking.estimation_exclusions(given.market, report)
    refuted = checking.refuted_returns(given.market, report)
    derived = derive_cube(clean, given.observed, excluded, sessions_of(recipe, clean), recipe, refuted)
    validate(derived, CUBE, CubeError, "the derived cube")
    return derived


def portable(report: CheckReport, settings: Settings) -> dict[str, Any]:
    """Return the report as JSON, its Data Docs named relative to the root, which may move."""
    content = report.model_dump(mode="json")
    if report.data_docs is not None:
        content["data_docs"] = Path(report.data_docs).relative_to(settings.root).as_posix()
    return content


def ingest_record(ingest_key: str, snapshot_id: str) -> str:
    """Key of the record that a snapshot holds the data of an ingest."""
    return digest([ingest_key, snapshot_id])[:32]
