"""What a delivery does to a cube, before anything is committed: the record that would be, and what checks say of it.

Here belongs the way from a cube and a delivery, or a correction, to what is to be derived. Which rows a delivery
replaces belongs in `models.deliveries`, the market of a record in `tasks.describing`, committing in `tasks.committing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import IntArray
from models.blocks import run_of, width_of
from models.deliveries import merged, tidied
from models.quality import delivery_tables, withdrawn_rows
from schemas.checks import CheckReport
from schemas.contracts import Ingest
from schemas.errors import CubeError
from schemas.spec import Recipe
from storage.arrays import SideBySide
from storage.cube import Cube
from tasks.describing import Checked, check_record

_SHOWN = 20
"""Withdrawn dates and tickers that the history of a cube names."""


@dataclass(frozen=True, eq=False)
class State:
    """A cube as it is now: what its record says, how it is derived, and of which deliveries something is left.

    Attributes
    ----------
    snapshot_id : str or None
        The newest snapshot; None if there is none.
    record : xarray.Dataset or None
        What deliveries have said, lazily; None if nothing, or if the cube is older than records.
    recipe : Recipe or None
        How it was derived.
    ingests : tuple of Ingest
        Deliveries and corrections, oldest first.
    dates : pandas.DatetimeIndex
        Dates of the cube.
    survey_key, derived_by : str or None
        Where it is kept what the checks looked at of the record, and by which code; None if that is not known.
    """

    snapshot_id: str | None
    record: xr.Dataset | None
    recipe: Recipe | None
    ingests: tuple[Ingest, ...]
    dates: pd.DatetimeIndex
    survey_key: str | None = None
    derived_by: str | None = None

    @property
    def order(self) -> IntArray | None:
        """Of each date of the record: the last full delivery that brought it, else the first increment."""
        if self.record is None:
            return None
        order = np.full(self.record.sizes["date"], -1, dtype=np.int64)
        for number, one in enumerate(self.ingests):
            for first, last in one.spans if one.kind != "correction" else ():
                within = self.record.indexes["date"].slice_indexer(pd.Timestamp(first), pd.Timestamp(last))
                new = (order[within] < 0) | (one.kind == "full")
                order[within] = np.where(new, number, order[within])
        return order

    @classmethod
    def of(cls, cube: Cube | None) -> State:
        """Read the newest state of a cube."""
        head = None if cube is None else cube.head()
        if cube is None or head is None:
            return cls(None, None, None, (), pd.DatetimeIndex([]))
        record = cube.open_record(head.id)
        recipe = head.metadata.get("recipe")
        return cls(
            snapshot_id=head.id,
            record=None if record is None else record.drop_attrs().drop_encoding(),
            recipe=None if recipe is None else Recipe.model_validate(recipe),
            ingests=tuple(Ingest.model_validate(one) for one in head.metadata.get("ingests", ())),
            dates=pd.DatetimeIndex(cube.open_dataset(head.id).indexes["date"]),
            survey_key=head.metadata.get("survey_key"),
            derived_by=head.metadata.get("derived_by"),
        )


@dataclass(frozen=True, eq=False)
class Delivery:
    """Rows that a source delivers.

    Attributes
    ----------
    rows : xarray.Dataset
        As `models.deliveries.as_record` gives them.
    kind : {"full", "increment"}
        What they speak of.
    recipe : Recipe
        How the config derives a cube.
    folder : Path
        Where a record that does not fit into memory lies while it is looked at.
    """

    rows: xr.Dataset
    kind: Literal["full", "increment"]
    recipe: Recipe
    folder: Path

    @property
    def span(self) -> tuple[date, date]:
        """First and last date."""
        dates = self.rows.indexes["date"]
        return dates[0].date(), dates[-1].date()

    def on(self, state: State, report: CheckReport | None = None) -> tuple[xr.Dataset, list[str]]:
        """Return the record after this delivery, without the dates that a report keeps out, and whose prices moved.

        Raises
        ------
        CubeError
            If the cube is older than records, and holds dates that this delivery does not.
        """
        first, last = self.rows.indexes["date"][[0, -1]]
        outside = state.dates[(state.dates < first) | (state.dates > last)]
        if state.record is None and (len(outside) or (len(state.dates) and self.kind != "full")):
            raise CubeError(
                "the cube was written before deliveries were recorded; ingest a full delivery that has all its dates, "
                f"{state.dates[0]:%Y-%m-%d} to {state.dates[-1]:%Y-%m-%d}, or start another `universe`"
            )
        silent = pd.DatetimeIndex([] if report is None else report.blocked_dates).as_unit("ns")
        if state.record is None:
            return merged(None, self.rows, self.kind, silent)
        return self._put_into(state.record, silent, state.order)

    def _put_into(
        self, record: xr.Dataset, silent: pd.DatetimeIndex, order: IntArray | None
    ) -> tuple[xr.Dataset, list[str]]:
        """Put the rows into a record: in memory if it is one block of tickers, else block by block on disk."""
        tickers = record.indexes["ticker"].union(self.rows.indexes["ticker"])
        width = width_of(record.sizes["date"] + self.rows.sizes["date"])
        if len(tickers) <= width:
            return merged(record.load(), self.rows, self.kind, silent, order)
        written, beside = SideBySide(Path(mkdtemp(dir=self.folder)) / "record", "ticker"), xr.Dataset()
        moved: list[str] = []
        for start in range(0, len(tickers), width):
            before, said = (_of_tickers(each, tickers[start : start + width]) for each in (record, self.rows))
            block, found = merged(before, said, self.kind, silent, order)
            written.add(block[[name for name in block if "ticker" in block[name].dims]])
            beside, moved = block.drop_dims("ticker"), moved + found
        return written.open().merge(beside).assign_coords(ticker=tickers).drop_attrs().drop_encoding(), moved

    def checked(self, state: State, data_docs: Path | None = None) -> Checked:
        """Check the market that a cube would describe after this delivery; also return what was looked at.

        Where dates are blocked, the cells that are flagged are those of what is left without them, and what was looked
        at is not what there will be: None.
        """
        record, _ = self.on(state)
        tables = delivery_tables(state.record, self.rows, record, self.kind)
        report, survey = check_record(record, self.recipe, delivery=tables, data_docs=data_docs)
        if report.blocked_ingest or not report.blocked_dates:
            return report, survey
        left = tidied(self.on(state, report)[0])
        if not left.sizes["date"]:
            return report, None
        again, _ = check_record(left, self.recipe, delivery={}, data_docs=None)
        whole = report.model_copy(
            update={
                "flagged_cells": again.flagged_cells,
                "flagged_rows": again.flagged_rows,
                "blocked_dates": tuple(sorted({*report.blocked_dates, *again.blocked_dates})),
            }
        )
        return whole, None


def _of_tickers(record: xr.Dataset, tickers: pd.Index) -> xr.Dataset:
    """Read what a record has of some tickers that ascend."""
    return record.isel(ticker=run_of(np.flatnonzero(record.indexes["ticker"].isin(tickers)))).load()


def left_of(ingests: Iterable[Ingest], new: Ingest, silent: Iterable[date]) -> tuple[Ingest, ...]:
    """Return the deliveries of which something is left after another one; a full one leaves nothing on its own span."""
    replaces = new.kind == "full" and not set(silent)
    left = []
    for one in ingests:
        if one.ingest_key == new.ingest_key:
            continue
        spans = tuple(part for span in one.spans for part in _cut(span, new.spans[0])) if replaces else one.spans
        if spans:
            left.append(one.model_copy(update={"spans": spans}))
    return (*left, new)


def _cut(span: tuple[date, date], gone: tuple[date, date]) -> list[tuple[date, date]]:
    one_day = pd.Timedelta(days=1)
    before = (span[0], min(span[1], (pd.Timestamp(gone[0]) - one_day).date()))
    after = (max(span[0], (pd.Timestamp(gone[1]) + one_day).date()), span[1])
    return [part for part in (before, after) if part[0] <= part[1]]


def withdrawn(before: xr.Dataset | None, after: xr.Dataset) -> dict[str, Any]:
    """Describe for the history which rows of a record are gone; empty if none are."""
    rows = pd.DataFrame() if before is None else withdrawn_rows(before, after)
    if rows.empty:
        return {}
    days = [f"{day:%Y-%m-%d}" for day in rows["date"].unique()]
    tickers = sorted(map(str, rows["ticker"].unique()))
    return {"withdrawn": {"rows": len(rows), "dates": days[:_SHOWN], "tickers": tickers[:_SHOWN]}}
