"""What a fitted model says of rows of a panel: loadings, factor returns, residuals, expected returns.

Here belongs the way of asking, block by block and with the rows that a model looks back on. What the risk is made of
it belongs in `following`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.arrays import BoolArray, Float64Array, FloatArray
from models.families.base import FactorModel, contributing
from models.panel import Panel
from models.panel.row_blocks import RowBlock, Rows, row_blocks, rows_at_once


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of consecutive rows of a panel, each beside the return r[t] of its date.

    Attributes
    ----------
    first : int
        Position of the first row in the panel.
    loadings : numpy.ndarray
        (row, ticker, factor) X[t-1], float32 as published; NaN where a stock is not covered.
    expected_returns : numpy.ndarray
        (row, ticker) float32; NaN on rows that nobody has asked it of.
    factor_returns : numpy.ndarray
        (row, factor) f[t], float64.
    residuals : numpy.ndarray
        (row, ticker) r[t] - X[t-1] f[t], float32; NaN where the return is missing or may not enter a stock's risk
        (`Panel.usable`), so that a suspected one does not.
    specific : numpy.ndarray or None
        (row, ticker) specific variance that the model states, known before the date, float32; None if not asked for.
    market_weight : numpy.ndarray
        (row, ticker) known before the date; NaN where a stock is not covered.
    """

    first: int
    loadings: npt.NDArray[np.float32]
    expected_returns: npt.NDArray[np.float32]
    factor_returns: Float64Array
    residuals: npt.NDArray[np.float32]
    specific: npt.NDArray[np.float32] | None
    market_weight: FloatArray


def answers(
    model: FactorModel, panel: Rows, start: int, stop: int, *, expected_from: int = 0, own: bool = False
) -> Iterator[Answers]:
    """Ask a fitted model about the rows from ``start`` to ``stop`` by position, a block in memory at a time.

    Each row is looked at with as many rows before it as the model says (`FactorModel.row_memory`), as far as there are
    any, and has the same bits in any block. Expected returns are asked of blocks that reach the row ``expected_from``,
    and its own specific variance if ``own``. Of blocks before that row factor returns and residuals count alone.
    """
    size = rows_at_once(len(panel.tickers), len(model.factors_))
    for block in row_blocks(panel, start, stop, size, model.row_memory):
        yield _asked(model, block, expected=block.last > expected_from, own=own)


def _asked(model: FactorModel, block: RowBlock, *, expected: bool, own: bool) -> Answers:
    """Ask about a block; of one that no row is shown of, leave out stocks that are neither covered nor have a return.

    They have no residual, and no say in a factor return.
    """
    rows = block.panel
    there = (rows.coverage.values | rows.returns.notnull().values).any(axis=0)
    if expected or there.all() or not there.any():
        return _asked_of_all(model, block, expected=expected, own=own)
    part = block._replace(panel=Panel(rows.data.isel(ticker=there)).load())
    found = _asked_of_all(model, part, expected=False, own=own)
    return replace(
        found,
        loadings=_widened(found.loadings, there),
        expected_returns=_widened(found.expected_returns, there),
        residuals=_widened(found.residuals, there),
        specific=None if found.specific is None else _widened(found.specific, there),
        market_weight=rows.market_weight.values[block.own],
    )


def _widened(values: npt.NDArray[np.float32], there: BoolArray) -> npt.NDArray[np.float32]:
    """Bring (row, ticker, ...) of some stocks to the axis of all."""
    wide = np.full((len(values), len(there), *values.shape[2:]), np.nan, dtype=np.float32)
    wide[:, there] = values
    return wide


def _asked_of_all(model: FactorModel, block: RowBlock, *, expected: bool, own: bool) -> Answers:
    rows, these = block.panel, block.own
    loadings = model.loadings(rows).transpose("date", "ticker", "factor").values[these].astype(np.float32)
    realised = model.factor_returns(rows).transpose("date", "factor").values[these].astype(np.float64)
    ahead = np.full(loadings.shape[:2], np.nan, dtype=np.float32)
    if expected:
        ahead = model.expected_returns(rows).transpose("date", "ticker").values[these].astype(np.float32)
    explained = (loadings * contributing(realised)[:, np.newaxis]).sum(axis=2)
    returns = np.where(rows.usable.values[these], rows.returns.values[these], np.nan)
    residuals = (returns - explained).astype(np.float32)
    stated = model.own_specific_variance(rows) if own else None
    specific = None if stated is None else stated[these].astype(np.float32)
    return Answers(block.first, loadings, ahead, realised, residuals, specific, rows.market_weight.values[these])
