"""What a fit that is continued makes of the past: its factor returns and residuals, date by date.

Here belong the reading of single panel rows from a snapshot, and the history of a fit over all dates, on which Omega
and specific variance rest. Each date is computed by itself, over the tickers that had appeared by then, so that it is
the same bits whoever asks and whenever. Complete blocks of dates are kept in the work store, named by their content:
a daily update computes the last, incomplete one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models import FactorModel, Panel
from models.families.base import contributing
from schemas.refs import SnapshotRef
from schemas.spec import RunSpec
from tasks.digests import Inputs
from tasks.panels import apart, blanked, blocks_of
from tasks.provenance import key
from tasks.registry import family_code
from tasks.snapshots import open_span
from tasks.stages import Stage
from tasks.workspace import Workspace

Arrays = dict[str, npt.NDArray[Any]]

_BLOCK_DATES = 64


@dataclass(frozen=True, eq=False)
class Reader:
    """Single rows of the panel of a snapshot, as one fitted model sees them.

    Attributes
    ----------
    space, spec, snapshot, inputs
        The data, and how a panel is made of them.
    model : FactorModel
        Fitted.
    kind : str
        What its family is called in a config.
    state : str
        Hash of its state.
    """

    space: Workspace
    spec: RunSpec
    snapshot: SnapshotRef
    inputs: Inputs
    model: FactorModel
    kind: str
    state: str

    @cached_property
    def cube(self) -> xr.Dataset:
        """The span of the snapshot, lazily."""
        return open_span(self.space, self.spec, self.snapshot)

    def rows(self, first: int, last: int) -> xr.Dataset:
        """Make the panel rows of the dates from `first` to `last` by position, and one for the session after them.

        Tickers are those seen by the last date.
        """
        begin = max(first - self.spec.panel.lag, 0)
        cube = self.cube.isel(date=slice(begin, last + 1), ticker=self.inputs.seen(last))
        (block,) = blocks_of(self.spec, cube, cube.sizes["date"] + 1)
        return block.isel(date=slice(first - begin, None))

    def holdings(self, first: int, last: int) -> xr.Dataset:
        """Portfolio weights and estimation universe of the dates from `first` to `last`, of tickers seen by then."""
        portfolios = [item.name for item in self.spec.portfolios]
        held = self.cube[["estimation", "weights"]].sel(portfolio=portfolios)
        return held.isel(date=slice(first, last + 1), ticker=self.inputs.seen(last)).load().drop_attrs()

    def known(self, tickers: Sequence[str] | npt.NDArray[np.str_], position: int) -> slice | npt.NDArray[np.int64]:
        """Where on an axis the tickers stand that had appeared by a date; a slice if that is all of them."""
        seen = self._first_seen.reindex(pd.Index(tickers)).to_numpy() <= position
        return slice(None) if seen.all() else np.flatnonzero(seen)

    @cached_property
    def _first_seen(self) -> pd.Series:
        return pd.Series(self.inputs.first_seen, index=self.inputs.tickers)


@dataclass(frozen=True, eq=False)
class History:
    """What a fit says of every date up to the last: all labelled with the date on which it happened.

    Attributes
    ----------
    factor_returns : xarray.DataArray
        (date, factor).
    residuals, returns, mask : xarray.DataArray
        (date, ticker): specific returns, excess returns and estimation universe.
    """

    factor_returns: xr.DataArray
    residuals: xr.DataArray
    returns: xr.DataArray
    mask: xr.DataArray


def history_of(reader: Reader, last: int) -> History:
    """Compute the history of a fit up to a date by position; complete blocks that are kept are not computed again."""
    starts = range(0, last + 1, _BLOCK_DATES)
    blocks = [_block(reader, first, min(first + _BLOCK_DATES - 1, last)) for first in starts]
    axis = reader.inputs.tickers[reader.inputs.seen(last)]
    dates = reader.inputs.dates[: last + 1]
    wide: dict[str, xr.DataArray] = {}
    for name, fill in (("residuals", np.float32(np.nan)), ("returns", np.float32(np.nan)), ("mask", np.bool_())):
        values = np.full((len(dates), len(axis)), fill)
        for first, (tickers, arrays) in zip(starts, blocks, strict=True):
            at = pd.Index(axis).get_indexer(pd.Index(tickers))
            values[first : first + len(arrays[name]), at] = arrays[name]
        wide[name] = xr.DataArray(values, dims=("date", "ticker"), coords={"date": dates, "ticker": axis})
    factors = np.concatenate([arrays["factor_returns"] for _, arrays in blocks])
    coords = {"date": dates, "factor": reader.model.factors_}
    return History(factor_returns=xr.DataArray(factors, dims=("date", "factor"), coords=coords), **wide)


def _block(reader: Reader, first: int, last: int) -> tuple[list[str], Arrays]:
    """Return tickers and arrays of a block of dates, from the work store if it is complete."""
    if last - first + 1 < _BLOCK_DATES:
        return _computed(reader, first, last)
    spec = reader.spec
    name = key(
        Stage.HISTORIES.code(family_code(reader.kind)),
        state=reader.state,
        inputs=reader.inputs.digests[last],
        first=first,
        panel=spec.panel.model_dump(mode="json", exclude={"start", "end"}),
    )
    if not reader.space.work.has("histories", name):
        tickers, arrays = _computed(reader, first, last)
        reader.space.work.put_arrays("histories", name, arrays, {"tickers": tickers})
    arrays, facts = reader.space.work.get_arrays("histories", name)
    return facts["tickers"], arrays


def _computed(reader: Reader, first: int, last: int) -> tuple[list[str], Arrays]:
    rows = reader.rows(first, last).isel(date=slice(0, last - first + 1))
    tickers = [str(name) for name in rows["ticker"].values]
    returns = rows["returns"].values
    factors = np.full((len(returns), len(reader.model.factors_)), np.nan)
    residuals = np.full(returns.shape, np.nan, dtype=np.float32)
    for row, position in enumerate(range(first, last + 1)):
        today, before = reader.known(tickers, position), reader.known(tickers, position - 1)
        one = rows.isel(date=slice(row, row + 1))
        factors[row] = (
            reader.model.factor_returns(Panel(apart(one.isel(ticker=today)))).transpose("date", "factor").values[0]
        )
        if isinstance(before, slice) or len(before):
            exposure = loadings_of(reader.model, apart(one.isel(ticker=before)))
            explained = (exposure * contributing(factors[row])).sum(axis=1)
            residuals[row, before] = returns[row, before] - explained
    mask = rows["mask"].values
    return tickers, {"factor_returns": factors, "residuals": residuals, "returns": returns, "mask": mask}


def loadings_of(model: FactorModel, row: xr.Dataset) -> npt.NDArray[np.float32]:
    """Return loadings (ticker, factor) of a single panel row, as they are published."""
    values = model.loadings(Panel(row)).transpose("date", "ticker", "factor").values
    loadings: npt.NDArray[np.float32] = values[0].astype(np.float32)
    return loadings


def expected_of(model: FactorModel, rows: xr.Dataset) -> npt.NDArray[np.float32]:
    """Return expected returns (ticker) of the second of two panel rows; a model may look at the first as it was."""
    second = blanked(rows, rows.indexes["date"][1])
    expected: npt.NDArray[np.float32] = (
        model.expected_returns(Panel(second)).transpose("date", "ticker").values[1].astype(np.float32)
    )
    return expected
