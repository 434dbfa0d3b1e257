"""The one commit of an ingest or a correction: derive the cube from a record that was checked, check it, write both.

Here belongs what becomes visible and what the history says of it. Which record it is belongs in `tasks.delivering`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.characteristics.cube import Checked, Stocks, cube_of, market_weeks, stocks_of, weights_by_span
from models.deliveries import observed_of
from models.panel.assembly import NEVER, first_seen, industry_places
from models.portfolios.holdings import unknown_shares
from schemas.base import digest
from schemas.checks import CheckReport
from schemas.contracts import CUBE, Ingest, validate
from schemas.errors import CubeError, ExecutionError
from schemas.refs import SnapshotRef
from schemas.settings import Settings
from schemas.spec import Holdings, Recipe
from storage.arrays import FAST_COMPRESSORS, SideBySide, read_dataset, write_dataset
from storage.cube import Commit, Cube
from storage.damage import Guard
from storage.files import staging, user
from storage.work import Kind
from tasks.artifacts import publish_check_table
from tasks.assets import cube_made
from tasks.delivering import State, withdrawn
from tasks.describing import Described, refuse_blocked, sessions_of
from tasks.events import announce_failed_checks, announce_snapshot
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace


class Ending(Protocol):
    """The end of a record, of which alone anything of the cube may be other than before (`tasks.following`)."""

    @property
    def delivered(self) -> xr.Dataset:
        """Rows of the record that are new."""
        ...

    def derived(self, report: CheckReport, folder: Path, cube: xr.Dataset) -> xr.Dataset:
        """Derive the dates of which something may be other than in the cube as it is."""
        ...


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
    survey_key : str or None
        Where it is kept what the checks looked at; None if that is not what will be there.
    """

    key: str
    message: str
    span: tuple[date, date]
    ingests: tuple[Ingest, ...]
    facts: dict[str, Any]
    survey_key: str | None = None


def commit_record(
    space: Workspace,
    universe: str,
    state: State,
    record: xr.Dataset | Ending,
    recipe: Recipe,
    report: CheckReport,
    change: Change,
    settings: Settings,
) -> SnapshotRef:
    """Derive a cube from a record that was checked, check it too, and commit both, into a new repository if need be.

    Of a record that only got longer its end is enough.

    Raises
    ------
    CheckError
        If a check of the cube blocks the ingest; nothing was written.
    ConflictError
        If the cube is no longer in the state that the record was made from; nothing was written.
    """
    from tasks import checking

    previous = None
    with staging(space.layout.work(Kind.RAW)) as folder:
        try:
            if isinstance(record, xr.Dataset):
                derived = derived_of(record, recipe, report, folder)
            else:
                previous = Cube.open(space.layout, universe).open_dataset(state.snapshot_id)
                derived = record.derived(report, folder, previous)
        except OSError as error:
            raise ExecutionError(f"{folder}: cannot be written: {error}; mend that and run again") from error
        docs = space.layout.data_docs(universe)
        late = checking.check_derived(
            derived, previous=previous, frequency=recipe.frequency, overrides=recipe.checks, data_docs=docs
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
            "derived_by": Stage.INGEST.code(),
            "survey_key": change.survey_key,
            **change.facts,
        }
        cube = Cube.open_or_create(space.layout, universe)
        if isinstance(record, xr.Dataset):
            metadata |= withdrawn(state.record, record) | _uncovered(recipe, derived)
            commit = cube.replace(derived, record, onto=state.snapshot_id, message=change.message, metadata=metadata)
        else:
            new = record.delivered
            commit = cube.extend(derived, new, onto=state.snapshot_id, message=change.message, metadata=metadata)
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


def derived_of(record: xr.Dataset, recipe: Recipe, report: CheckReport, folder: Path) -> xr.Dataset:
    """Derive the variables of a cube from a record, without what a report keeps out.

    Parameters
    ----------
    record : xarray.Dataset
        What was checked; may be lazy.
    recipe, report : Recipe, CheckReport
        How a cube is derived, and what the checks say.
    folder : Path
        An empty folder, in which the result lies.

    Returns
    -------
    xarray.Dataset
        As `models.characteristics.cube.derive_cube` gives it, lazy.
    """
    described = Described.of(record, recipe)
    known = pd.DatetimeIndex(record.indexes["date"])
    dates = known[~known.isin(pd.DatetimeIndex(report.blocked_dates))]
    stocks, industries = _stocks(described, recipe, report, sessions_of(recipe, dates), folder)
    weighed = folder / "weights"
    weighed.mkdir()
    spans = (span.to_dataset(name="weights") for span in weights_by_span(stocks, recipe))
    write_dataset(weighed, spans, compressors=FAST_COMPRESSORS)
    weights = read_dataset(weighed, guard=Guard(str(weighed), "is the disk sound?"))["weights"]
    observed = observed_of(described.record.head)
    derived = cube_of(stocks.own, weights, observed, industries, dates).drop_encoding()
    validate(derived, CUBE, CubeError, "the derived cube")
    return derived


def _stocks(
    described: Described, recipe: Recipe, report: CheckReport, sessions: pd.DatetimeIndex, folder: Path
) -> tuple[Stocks, list[str] | None]:
    """Compute what is known of each stock alone into a folder; return it with the names of industries."""
    places, industries = _industries(described)

    def passed() -> Iterator[Checked]:
        return (_checked(described, block, report, places) for block in described.record)

    market = market_weeks(passed(), sessions, recipe)
    own, scores, companies = SideBySide(folder / "own", "ticker"), SideBySide(folder / "scores", "company"), []
    for part in passed():
        stocks = stocks_of(part, sessions, recipe, market)
        own.add(stocks.own)
        scores.add(stocks.scores)
        companies.append(stocks.companies)
    labelled = own.open().assign_coords(ticker=described.record.tickers)
    return Stocks(labelled, scores.open(), np.concatenate(companies)), industries


def _checked(
    described: Described, block: xr.Dataset, report: CheckReport, places: npt.NDArray[np.int16] | None
) -> Checked:
    """Take out of a block of a record what a report blocks, and say what it suspects."""
    from tasks import checking

    market, observed = described.of_block(block), observed_of(block)
    clean = checking.without_blocked(market, report)
    industry = None
    if observed is not None and places is not None:
        industry = observed["industry"].copy(data=places[observed["industry"].values])
    excluded, refuted = (of(market, report) for of in (checking.estimation_exclusions, checking.refuted_returns))
    return Checked(clean, excluded, refuted, industry)


def _industries(described: Described) -> tuple[npt.NDArray[np.int16] | None, list[str] | None]:
    """Return the code that a cube gives to each industry of a record, and its names; None if there are none."""
    if "classified" not in described.record.source:
        return None, None
    names = described.record.source["industry_name"].values.tolist()
    first = np.full(len(names), NEVER)
    for block in described.record:
        observed = observed_of(block)
        if observed is not None:
            first = np.minimum(first, first_seen(observed["industry"].values, len(names)))
    return industry_places(first, names)


def portable(report: CheckReport, settings: Settings) -> dict[str, Any]:
    """Return the report as JSON, its Data Docs named relative to the root, which may move."""
    content = report.model_dump(mode="json")
    if report.data_docs is not None:
        content["data_docs"] = Path(report.data_docs).relative_to(settings.root).as_posix()
    return content


def ingest_record(ingest_key: str, snapshot_id: str) -> str:
    """Key of the record that a snapshot holds the data of an ingest."""
    return digest([ingest_key, snapshot_id])[:32]
