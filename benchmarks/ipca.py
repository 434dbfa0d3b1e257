"""IPCA against the `ipca` package, from the panel to the estimate, at one tolerance.

The peer's criterion is the largest change of Gamma and factors in one plain step. Ours, the sine by which a plain step
turns Gamma, is set so that its estimate is at least as close to the optimum: both are compared with one that is far
tighter, and the note says how far each is from it.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from benchmarks.harness import Row, measure
from models.families.ipca import IPCA
from models.panel import Panel


def run(*, quick: bool) -> list[Row]:
    """Time K = 3 and 5 on a large panel, and K = 3 at a tight tolerance on smaller ones."""
    large, small = ((60, 800, 12), (60, 300, 12)) if quick else ((240, 8000, 30), (240, 2000, 30))
    return [
        *_compare(*large, (3, 5), 1e-6, (25.0, 18.0)),
        *_compare(*small, (3,), 1e-10, (60.0,)),
        *_compare(*small, (3,), 1e-10, (60.0,), weakest=0.9),
    ]


def _compare(
    n_dates: int,
    n_stocks: int,
    n_chars: int,
    n_factors: tuple[int, ...],
    tol: float,
    targets: tuple[float, ...],
    weakest: float = 0.4,
) -> list[Row]:
    from ipca import InstrumentedPCA

    panel = _panel(n_dates, n_stocks, n_chars, weakest)
    date, stock = np.nonzero(panel.mask.values)
    Z = panel.characteristics.values[date, stock].astype(np.float64)
    r = panel.returns.values[date, stock].astype(np.float64)
    index = np.column_stack([stock, date])
    _peer_fit(InstrumentedPCA(2), Z[date < 12], r[date < 12], index[date < 12])  # compiles
    IPCA(2).fit(panel.sel(end=panel.dates[11]))
    rows = []
    for k, target in zip(n_factors, targets, strict=True):
        best = IPCA(k, tol=1e-13, max_iter=2000).fit(panel).gamma_.values
        ours = measure(lambda k=k: IPCA(k, tol=tol, max_iter=10_000).fit(panel), repeats=3)
        peer = InstrumentedPCA(k, iter_tol=tol, max_iter=10_000)
        theirs = measure(lambda peer=peer: _peer_fit(peer, Z, r, index), repeats=2)
        gaps = [np.abs(gamma - best).max() for gamma in (ours.value.gamma_.values, theirs.value)]
        rows.append(
            Row(
                work=f"IPCA, {n_dates} x {n_stocks} x {n_chars}, K = {k}, tolerance {tol:.0e}, factors 1 to {weakest}",
                ours_seconds=ours.seconds,
                peer="ipca",
                peer_seconds=theirs.seconds,
                note=f"Gamma off the optimum by {gaps[0]:.0e} and {gaps[1]:.0e}; {ours.value.n_iter_} iterations",
                target=target,
                ours_peak_bytes=ours.peak_bytes,
                peer_peak_bytes=theirs.peak_bytes,
            )
        )
    return rows


def _peer_fit(peer: object, Z: np.ndarray, r: np.ndarray, index: np.ndarray) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        peer.fit(Z, r, index.copy(), quiet=True)  # type: ignore[attr-defined]  # the package has no types
    return peer.Gamma  # type: ignore[attr-defined,no-any-return]


def _panel(n_dates: int, n_stocks: int, n_chars: int, weakest: float) -> Panel:
    """Five factors of falling strength on persistent ranks, with a tenth of the rows missing.

    The less their strengths differ, the more iterations it takes to tell three of them from the others.
    """
    rng = np.random.default_rng(0)
    gamma = np.linalg.qr(rng.standard_normal((n_chars, 5)))[0]
    factors = 0.004 + 0.04 * rng.standard_normal((n_dates, 5)) * np.linspace(1.0, weakest, 5)
    state = rng.standard_normal((n_stocks, n_chars))
    values = np.empty((n_dates, n_stocks, n_chars), dtype=np.float32)
    returns = np.empty((n_dates, n_stocks), dtype=np.float32)
    for date in range(n_dates):
        state = 0.95 * state + 0.31 * rng.standard_normal(state.shape)
        ranks = state.argsort(axis=0).argsort(axis=0) / (n_stocks - 1) - 0.5
        values[date] = ranks
        returns[date] = ranks @ (gamma @ factors[date]) + 0.1 * rng.standard_normal(n_stocks)
    returns[rng.random(returns.shape) < 0.1] = np.nan
    return Panel.from_arrays(returns, values)
