"""Bars that contradict themselves, and which of their prices is wrong.

Here belong rules of the open, high, low and close of one row. A whole bar is lost for one wrong price only where the
close may be the wrong one: returns are made of closes, and a close is judged by those around it, in `jumps`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.arrays import BoolArray, FloatArray

PRICES = ("open", "high", "low", "close")


def nonpositive(bars: Mapping[str, FloatArray], least: float) -> tuple[BoolArray, dict[str, BoolArray]]:
    """Flag prices that are not above a bound, or infinite.

    Returns
    -------
    flags : ndarray (date, ticker)
    blamed : dict of str to ndarray (date, ticker)
        The prices that are wrong, where the close is not among them.
    """
    wrong = {name: np.isinf(price) | (price <= least) for name, price in bars.items()}
    flags: BoolArray = np.logical_or.reduce(list(wrong.values()))
    close = wrong.get("close", np.zeros_like(flags))
    return flags, {name: at & ~close for name, at in wrong.items() if name != "close"}


def impossible(bars: Mapping[str, FloatArray], tolerance: float) -> tuple[BoolArray, dict[str, BoolArray]]:
    """Flag bars with a price above the high or below the low by more than a tolerance, as a share of the price.

    A price that is missing, infinite or not positive cannot contradict the others. A price is *suspected* if the bar
    holds together without it. Where the close is suspected, or nothing alone explains the bar, the whole bar is wrong.
    Otherwise a suspected open is: the high and the low hold the close. Otherwise a suspected high or low.

    Returns
    -------
    flags : ndarray (date, ticker)
    blamed : dict of str to ndarray (date, ticker)
        The price that is wrong, where it alone is.
    """
    known = {name: np.where(np.isfinite(price) & (price > 0.0), price, np.nan) for name, price in bars.items()}
    flags = _contradicts(known, tolerance)
    if not flags.any():
        return flags, {}
    rows = {name: price[flags] for name, price in known.items()}  # few: the rest need not be gone through again
    suspected = {name: ~_contradicts({n: p for n, p in rows.items() if n != name}, tolerance) for name in rows}
    free = ~suspected.get("close", np.ones(flags.sum(), dtype=np.bool_))
    blamed: dict[str, BoolArray] = {}
    for name in ("open", "high", "low"):
        if name in rows:
            blamed[name] = np.zeros_like(flags)
            blamed[name][flags] = free & suspected[name]
            if name == "open":
                free &= ~suspected["open"]
    return flags, blamed


def _contradicts(bars: Mapping[str, FloatArray], tolerance: float) -> BoolArray:
    """Whether a price lies above the high or below the low; a missing one cannot."""
    top = np.fmax.reduce(list(bars.values()))
    bottom = np.fmin.reduce(list(bars.values()))
    slack = tolerance * np.abs(top)
    wrong = np.zeros(top.shape, dtype=np.bool_)
    if "high" in bars:
        wrong |= top > bars["high"] + slack
    if "low" in bars:
        wrong |= bottom < bars["low"] - slack
    return wrong
