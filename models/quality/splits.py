"""The repair of splits that nobody adjusted prices for: which ratio, and prices and shares on one footing.

Here belong the proposal and the adjustment. What makes a jump look like a split belongs in `jumps`.

Prices are adjusted *forward*: those from a split on are multiplied, and those before stay as they came. What is known
at a date so depends on nothing after it, a later split changes no earlier number, and data that begin after a split
differ from those that begin before it by a constant factor only, which neither returns nor characteristics see.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import FloatArray
from models.blocks import Blocks
from models.quality import jumps
from models.quality.arrays import labels, previous
from models.quality.bars import PRICES

UNDECIDED_SIGMAS = 2.0


def propose_splits(market: xr.Dataset | Blocks, sigmas: float) -> pd.DataFrame:
    """Find the jumps of daily prices that a split explains, and its ratio.

    A jump is one that the check `split_like_jump` flags, here also over up to `jumps.LOOKAHEAD` dates without a price.
    The ratio is the nearest, to the whole move or to its overnight part, and must explain the whole move. Where another
    is less than two sigmas farther, there is no proposal, and the flag stays.

    Parameters
    ----------
    market : xarray.Dataset or models.blocks.Blocks
        close (date, ticker), and any of open and volume; dates ascend.
    sigmas : float
        Least size of a jump, in volatilities of the stock.

    Returns
    -------
    DataFrame
        One row per split, by date and ticker: ``ratio``, the shares after for one before, and what speaks for it: the
        ``move`` in logs beyond the market's, its ``sigmas``, its part ``overnight``, ``turnover`` over its usual level
        without confirming the jump as news, and the ``rest`` of the move that the ratio leaves. NaN where not known.
    """
    blocks = market if isinstance(market, Blocks) else Blocks(market)
    sections = jumps.Sections.of(len(blocks.dates), lambda: map(_over_gaps, blocks))
    found = pd.concat([_proposed(block, sigmas, sections) for block in blocks])
    place = pd.Index(labels(blocks.tickers)).get_indexer(pd.Index(found["ticker"]))
    return found.iloc[np.lexsort((place, found["date"]))].reset_index(drop=True)


def _over_gaps(market: xr.Dataset) -> jumps.Part:
    """Return returns since the last price of a few dates before, and the fields that belong to them."""
    fields = {str(name): array.values for name, array in market.data_vars.items() if array.ndim == 2}
    close = fields["close"]
    known = np.isfinite(close) & (close > 0.0)
    last = pd.DataFrame(np.where(known, close, np.nan)).ffill(limit=jumps.LOOKAHEAD).to_numpy(dtype=np.float64)
    return np.where(known, last / previous(last) - 1.0, np.nan), fields | {"close": last}


def _proposed(market: xr.Dataset, sigmas: float, sections: jumps.Sections) -> pd.DataFrame:
    moves = jumps.measure(*_over_gaps(market), sections)
    candidates, distances = jumps.split_distances(moves, sigmas)
    scale = jumps.usual_scale(moves)
    nearest = np.sort(distances, axis=2)
    part = nearest[:, :, 0].argmin(axis=0)  # the whole move or its overnight part, whichever a ratio explains better
    jump = np.arange(len(part))
    which = distances[part, jump].argmin(axis=1)
    clear = nearest[part, jump, 1] - nearest[part, jump, 0] >= UNDECIDED_SIGMAS * scale[candidates]
    chosen = np.flatnonzero((distances[0, jump, which] <= jumps.split_tolerance(moves, candidates)) & clear)
    rows, columns = (places[chosen] for places in np.nonzero(candidates))
    ratio = jumps.SPLIT_RATIOS[which[chosen]]
    move = moves.abnormal[rows, columns]
    unknown = np.full(moves.abnormal.shape, np.nan)
    return pd.DataFrame(
        {
            "date": market["date"].values[rows],
            "ticker": labels(market["ticker"])[columns],
            "ratio": ratio,
            "move": move,
            "sigmas": move / scale[rows, columns],
            "overnight": (unknown if moves.overnight is None else moves.overnight)[rows, columns],
            "turnover": (unknown if moves.turnover is None else moves.turnover)[rows, columns],
            "rest": move + np.log(ratio),
        }
    )


def adjust_splits(market: xr.Dataset, splits: pd.DataFrame) -> xr.Dataset:
    """Multiply prices from each split on by its ratio, and divide volume and shares by it.

    Parameters
    ----------
    market : xarray.Dataset
        (date, ticker) prices, volume, shares.
    splits : DataFrame
        ``date``, ``ticker`` and ``ratio``, as from `propose_splits`; those of other tickers change nothing.

    Returns
    -------
    xarray.Dataset
        With ``split_ratio`` (date, ticker): the ratio at each split, NaN elsewhere.
    """
    splits = splits[splits["ticker"].isin(labels(market["ticker"]))]
    rows = market.indexes["date"].get_indexer(pd.DatetimeIndex(splits["date"]))
    columns = pd.Index(labels(market["ticker"])).get_indexer(pd.Index(splits["ticker"]))
    ratios = np.full((market.sizes["date"], market.sizes["ticker"]), np.nan)
    ratios[rows, columns] = splits["ratio"]
    changed = np.unique(columns)
    factor = np.cumprod(np.where(np.isnan(ratios[:, changed]), 1.0, ratios[:, changed]), axis=0)
    out = market.assign(split_ratio=(("date", "ticker"), ratios))
    for name in (*PRICES, "volume", "shares"):
        if name in market:
            values: FloatArray = market[name].values.copy()
            values[:, changed] = values[:, changed] * factor if name in PRICES else values[:, changed] / factor
            out[name] = market[name].copy(data=values)
    return out


def ratio_in_words(ratio: float) -> str:
    """Put a ratio of shares in words: 2:1, 3:2, 1:10."""
    larger = max(ratio, 1.0 / ratio)
    after, before = (round(2.0 * larger), 2) if abs(larger - round(larger)) > 0.01 else (round(larger), 1)
    return f"{after}:{before}" if ratio > 1.0 else f"{before}:{after}"
