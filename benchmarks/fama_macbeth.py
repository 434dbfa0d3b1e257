"""Fama-MacBeth premia with Newey-West errors, against linearmodels, on an unbalanced panel of 240 months.

Both start from what their users hold: a float32 `Panel` here, and there a long pandas frame of float64 with an index of
stocks and months, which is made before the clock starts. Both estimate the same slopes, and errors with the same
kernel.

Memory of the product is the larger of what the system saw and what Python traced in a run of its own: so small a fit
may live in pages that earlier work left resident.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.harness import Measured, Row, measure
from models.families.fama_macbeth.model import FamaMacBeth
from models.panel import Panel

N_DATES, N_CHARS, LAGS = 240, 30, 4
SIZES = (2_000, 8_000)


def run(*, quick: bool = False) -> list[Row]:
    """Time both sizes, or a small one."""
    if quick:
        return [_row(n_dates=60, n_stocks=200, n_chars=10)]
    return [_row(n_dates=N_DATES, n_stocks=n_stocks, n_chars=N_CHARS) for n_stocks in SIZES]


def simulate(n_dates: int, n_stocks: int, n_chars: int) -> Panel:
    """Make ranked characteristics and returns, float32, a tenth of the rows without a return."""
    rng = np.random.default_rng(0)
    characteristics = rng.uniform(-1.0, 1.0, (n_dates, n_stocks, n_chars)).astype(np.float32)
    slopes = 0.01 * rng.standard_normal((n_dates, n_chars, 1)).astype(np.float32)
    returns = (characteristics @ slopes)[..., 0] + 0.1 * rng.standard_normal((n_dates, n_stocks), dtype=np.float32)
    returns[rng.random(returns.shape) < 0.1] = np.nan
    return Panel.from_arrays(returns, characteristics)


def _row(n_dates: int, n_stocks: int, n_chars: int) -> Row:
    panel = simulate(n_dates, n_stocks, n_chars)
    FamaMacBeth().fit(panel.sel(end=panel.dates[1]))  # first call of each library routine

    def fit() -> FamaMacBeth:
        return FamaMacBeth(newey_west_lags=LAGS).fit(panel)

    ours = measure(fit, repeats=3)
    peer = _peer(panel)
    model, (premia, errors) = ours.value, peer.value
    apart = max(
        float(np.max(np.abs(model.premia_ / premia - 1.0))), float(np.max(np.abs(model.premia_stderr_ / errors - 1.0)))
    )
    return Row(
        work=f"Fama-MacBeth, {n_dates} x {n_stocks:,} x {n_chars}",
        ours_seconds=ours.seconds,
        peer="linearmodels",
        peer_seconds=peer.seconds,
        note=f"premia and errors differ by at most {apart:.0e} of their size",
        target=60.0 if n_stocks in SIZES else None,
        ours_peak_bytes=max(ours.peak_bytes or 0, _traced(fit)),
        peer_peak_bytes=peer.peak_bytes,
    )


def _peer(panel: Panel) -> Measured[tuple[np.ndarray, np.ndarray]]:
    """Premia and errors of linearmodels."""
    from linearmodels import FamaMacBeth as Peer

    date, stock = np.nonzero(panel.mask.values)
    index = pd.MultiIndex.from_arrays([stock, panel.dates[date]], names=["entity", "time"])
    exog = pd.DataFrame(panel.characteristics.values[date, stock].astype(np.float64), index, panel.chars)
    exog.insert(0, "intercept", 1.0)
    dependent = pd.DataFrame({"ret": panel.returns.values[date, stock].astype(np.float64)}, index)

    def fit() -> tuple[np.ndarray, np.ndarray]:
        result = Peer(dependent, exog).fit(cov_type="kernel", kernel="bartlett", bandwidth=LAGS, debiased=False)
        return result.params.to_numpy(), result.std_errors.to_numpy()

    return measure(fit)


def _traced(function: Callable[[], object]) -> int:
    """Peak of the memory that Python and numpy allocate while a function runs, in bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
