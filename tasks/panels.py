"""The step that builds the panel: read the cube block by block, write what models see, and name it by its content.

One panel holds all dates of a snapshot's span. What a fit or a run may know as of a date is a view of it: the rows up
to that date, the tickers that have appeared by then, and one row more for the next session, without its returns. The
bits of a view do not depend on what the panel holds beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models import Panel
from models.forecasting.held import holdings
from models.panel.assembly import panel_blocks
from models.panel.digests import DataDigests
from schemas.refs import Key, PanelRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.sources import next_session
from storage.work import Kind
from tasks.digests import read_inputs, stored_inputs
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.snapshots import open_span
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace

_IN_MEMORY_BYTES = 2**29
"""A panel up to this size is kept in memory by each worker; a larger one is read block by block."""


@step("build panel", "panel of {spec.universe}")
def build_panel(spec: RunSpec, snapshot: SnapshotRef, as_of: date | None, settings: Settings) -> PanelRef:
    """Build the panel of a snapshot, unless it is there, and refer to what was known as of a date.

    Parameters
    ----------
    spec : RunSpec
        What a model sees.
    snapshot : SnapshotRef
        The data.
    as_of : date or None
        The last date that may be known; the last one of the snapshot if None.
    settings : Settings
        Where, and how many dates are in memory at a time.
    """
    space = Workspace.of(settings)
    inputs = read_inputs(space, spec, snapshot)
    facts = spec.panel.model_dump(mode="json", exclude={"start", "end"})
    panel_key = key(
        Stage.PANELS.code(), inputs=inputs.digests[-1], panel=facts, calendar=spec.calendar, frequency=spec.frequency
    )
    if not (space.work.has(Kind.PANELS, panel_key) and space.work.has(Kind.HELD, panel_key)):
        cube = open_span(space, spec, snapshot).isel(ticker=inputs.seen(len(inputs.dates) - 1))
        space.work.put_dataset(Kind.PANELS, panel_key, blocks_of(spec, cube, settings.block_dates))
        held = holdings(cube).sel(portfolio=[item.name for item in spec.portfolios])
        space.work.put_dataset(Kind.HELD, panel_key, held)
    last = inputs.as_of(as_of)
    ref = PanelRef(
        universe=spec.universe,
        key=panel_key,
        inputs=inputs.key,
        snapshot=snapshot,
        as_of=last,
        next_date=next_session(spec.calendar, spec.frequency, last).date(),
    )
    panel = Sample(space, ref, spec).known()
    run_logger().info(
        "panel as of %s: %d dates x %d tickers x %d characteristics (%s)",
        last, len(panel.dates) - 1, len(panel.tickers), len(panel.chars), ", ".join(panel.chars),
    )  # fmt: skip
    return ref


def blocks_of(spec: RunSpec, cube: xr.Dataset, block: int) -> Iterator[xr.Dataset]:
    """Make the panel of a span of a cube block by block, with a row for the session after its last date."""
    return panel_blocks(
        cube,
        characteristics=spec.panel.characteristics,
        transform=spec.panel.transform,
        lag=spec.panel.lag,
        constant=spec.panel.constant,
        min_coverage=spec.panel.min_coverage,
        market_portfolio=spec.panel.market_portfolio,
        next_date=next_session(spec.calendar, spec.frequency, cube.indexes["date"][-1]),
        block=block,
    )


@dataclass(frozen=True)
class Sample:
    """What the steps on workers look at: a panel as of a date, and the spec that it is studied by. It travels to them.

    Attributes
    ----------
    space : Workspace
        Intermediate results; `Workspace.of_workers` gives one that may travel.
    panel : PanelRef
        The panel.
    spec : RunSpec
        What a model sees, and how it is fitted and judged.
    """

    space: Workspace
    panel: PanelRef
    spec: RunSpec

    @property
    def inputs(self) -> DataDigests:
        """Digests of the data behind the panel."""
        return _inputs(self.space, self.panel.inputs)

    @property
    def sees(self) -> dict[str, Any]:
        """What a key says of how the panel is made of its data."""
        return self.spec.panel.model_dump(mode="json", exclude={"start", "end"})

    def stored(self) -> Panel:
        """Return the whole panel, lazily if it is large."""
        return _stored(self.space, self.panel.key)

    def known(self) -> Panel:
        """Return what was known as of the panel's date, and the row of the next session."""
        position = self.inputs.position(self.panel.as_of)
        rows = self.stored().view(position + 2, self.inputs.axis(position))
        return rows.awaiting(pd.Timestamp(self.panel.next_date))

    def past(self, day: date | pd.Timestamp) -> Panel:
        """Return the rows up to a day, with the tickers that had appeared by then; later dates have no say in it."""
        position = self.inputs.position(day)
        return self.stored().view(position + 1, self.inputs.axis(position))

    def until(self, day: date | pd.Timestamp) -> Panel:
        """Return the rows up to a date that may be the next session, whose row is without what happens on it."""
        last = pd.Timestamp(day).date()
        return self.past(last) if last <= self.panel.as_of else self.known()

    def held(self) -> xr.Dataset:
        """Return portfolio weights, estimation universe and refuted returns up to the panel's as-of date, lazily."""
        position = self.inputs.position(self.panel.as_of)
        held = self.space.work.open_dataset(Kind.HELD, self.panel.key)
        return held.isel(date=slice(0, position + 1), ticker=self.inputs.axis(position)).drop_attrs()


@dataclass(frozen=True, eq=False)
class CubeRows:
    """Rows of the panel of a snapshot, made when they are asked for (`models.panel.row_blocks.Rows`).

    Attributes
    ----------
    space, spec, snapshot, inputs
        The data, and how a panel is made of them.
    last : int
        Position of the last date that may be known; the row after it is that of the next session. Tickers are those
        that had appeared by then.
    """

    space: Workspace
    spec: RunSpec
    snapshot: SnapshotRef
    inputs: DataDigests
    last: int

    @property
    def tickers(self) -> list[str]:
        """Names of the stocks, in the order of the axis."""
        return [str(name) for name in self.inputs.tickers[self.inputs.seen(self.last)]]

    @property
    def order(self) -> list[str]:
        """The same names in the order in which they appeared: as updates one by one add them."""
        seen = self.inputs.seen(self.last)
        order = np.argsort(self.inputs.first_seen[seen], kind="stable")
        return [str(name) for name in self.inputs.tickers[seen[order]]]

    def rows(self, start: int, stop: int) -> Panel:
        """Make rows by position, reading the cube as far back as the lag asks for."""
        begin = max(start - self.spec.panel.lag, 0)
        cube = self._cube.isel(date=slice(begin, min(stop, self.last + 1)), ticker=self.inputs.seen(self.last))
        (block,) = blocks_of(self.spec, cube, cube.sizes["date"] + 1)
        return Panel(block.isel(date=slice(start - begin, stop - begin))).load()

    def holdings(self, start: int, stop: int) -> xr.Dataset:
        """Portfolio weights, estimation universe and refuted returns of dates by position."""
        portfolios = [item.name for item in self.spec.portfolios]
        held = holdings(self._cube).sel(portfolio=portfolios)
        return held.isel(date=slice(start, stop), ticker=self.inputs.seen(self.last)).load()

    @cached_property
    def _cube(self) -> xr.Dataset:
        return open_span(self.space, self.spec, self.snapshot)


@lru_cache(maxsize=2)
def _stored(space: Workspace, name: Key) -> Panel:
    panel = Panel(space.work.open_dataset(Kind.PANELS, name))
    return panel.load() if panel.data.nbytes <= _IN_MEMORY_BYTES else panel


@lru_cache(maxsize=4)
def _inputs(space: Workspace, name: Key) -> DataDigests:
    return stored_inputs(space, name)
