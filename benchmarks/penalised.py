"""Penalised paths and their cross-validation against scikit-learn on the same rows, grids and folds.

Pooled: an elastic net of all returns on all characteristics. Time series: a lasso per ticker on observed factors, which
scikit-learn fits one by one. Both sides start from the rows in memory.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import ElasticNetCV, LassoCV, enet_path

from benchmarks.harness import Row, measure
from models.families.penalised import PenalisedModel, lambda_grid, penalised_path
from models.families.penalised.cross_validation import BlockedFolds
from models.families.penalised.moments import pooled_moments
from models.panel import Panel
from models.statistics.gram import gram_statistics

N_LAMBDAS = 100
TOL = 1e-8  # of scikit-learn's duality gap; its default is 1e-4


def run(*, quick: bool = False) -> list[Row]:
    """Time the pooled path, its cross-validation, and the regressions per ticker."""
    pooled = (60, 300, 30) if quick else (240, 2000, 94)
    tickers = (500, 50, 6) if quick else (1260, 500, 6)
    return [*_pooled(*pooled), _time_series(*tickers)]


def _pooled(n_dates: int, n_stocks: int, n_chars: int) -> list[Row]:
    panel = _characteristics(n_dates, n_stocks, n_chars)
    date, stock = np.nonzero(panel.mask.values)
    Z, r = panel.characteristics.values[date, stock].astype(np.float64), panel.returns.values[date, stock]
    size = f"{n_dates} dates x {n_stocks} stocks x {n_chars} characteristics, {N_LAMBDAS} penalties"

    def ours_path() -> tuple[np.ndarray, np.ndarray]:
        gram = gram_statistics(panel, intercept=True)
        quadratic = pooled_moments(gram, np.ones((1, n_dates))).quadratic(standardise=False)
        grid = lambda_grid(quadratic, 0.5, N_LAMBDAS)
        return grid[0, 0], penalised_path(quadratic, grid, 0.5).coefficients[0, 0]

    mine = measure(ours_path)
    grid, found = mine.value
    peer = measure(
        lambda: enet_path(
            Z - Z.mean(axis=0), r - r.mean(), l1_ratio=0.5, alphas=grid, precompute=True, tol=TOL, max_iter=100_000
        )[1]
    )
    path = Row(
        f"elastic net path, {size}",
        mine.seconds,
        "scikit-learn",
        peer.seconds,
        f"largest difference of a slope {np.abs(found.T - peer.value).max():.1e}; both from rows",
        ours_peak_bytes=mine.peak_bytes,
        peer_peak_bytes=peer.peak_bytes,
    )
    folds = BlockedFolds(5)
    model = PenalisedModel(standardise=False, rule="min", n_lambdas=N_LAMBDAS, n_bootstraps=0)
    mine_cv = measure(lambda: model.fit(panel))
    train, test = folds.masks(n_dates)
    rows = [(np.flatnonzero(a[date]), np.flatnonzero(b[date])) for a, b in zip(train, test, strict=True)]
    peer_cv = measure(
        lambda: ElasticNetCV(l1_ratio=0.5, alphas=grid, cv=rows, precompute=True, tol=TOL, max_iter=100_000).fit(Z, r)
    )
    error = np.abs(mine_cv.value.cv_error_.values / peer_cv.value.mse_path_.mean(axis=1) - 1.0).max()
    chosen = Row(
        f"the same with 5 purged blocks, {size}",
        mine_cv.seconds,
        "scikit-learn",
        peer_cv.seconds,
        f"largest relative difference of an error {error:.1e} (scikit-learn weights folds alike)",
        ours_peak_bytes=mine_cv.peak_bytes,
        peer_peak_bytes=peer_cv.peak_bytes,
    )
    return [path, chosen]


def _time_series(n_dates: int, n_stocks: int, n_factors: int) -> Row:
    rng = np.random.default_rng(0)
    factors = 0.01 * (0.5 * rng.standard_normal((n_dates, 1)) + rng.standard_normal((n_dates, n_factors)))
    betas = rng.standard_normal((n_stocks, n_factors)) * (rng.random((n_stocks, n_factors)) < 0.5)
    returns = factors @ betas.T + 0.02 * rng.standard_normal((n_dates, n_stocks))
    panel = Panel.from_arrays(returns, factors=factors)
    model = PenalisedModel("time_series", "lasso", standardise=False, rule="min", n_lambdas=N_LAMBDAS, n_bootstraps=0)
    mine = measure(lambda: model.fit(panel))
    rows = list(BlockedFolds(5).split(factors))
    grids = mine.value.lambdas_.values

    def one_by_one() -> np.ndarray:
        fits = [
            LassoCV(alphas=grid, cv=rows, precompute=True, tol=TOL, max_iter=100_000).fit(factors, returns[:, ticker])
            for ticker, grid in enumerate(grids)
        ]
        return np.array([fit.coef_ for fit in fits])

    peer = measure(one_by_one)
    return Row(
        f"lasso per ticker, {n_dates} dates x {n_stocks} tickers x {n_factors} factors, {N_LAMBDAS} penalties, 5 folds",
        mine.seconds,
        "scikit-learn",
        peer.seconds,
        f"largest difference of a beta {np.abs(mine.value.coefficients_.values - peer.value).max():.1e}",
        ours_peak_bytes=mine.peak_bytes,
        peer_peak_bytes=peer.peak_bytes,
    )


def _characteristics(n_dates: int, n_stocks: int, n_chars: int) -> Panel:
    rng = np.random.default_rng(0)
    Z = rng.random((n_dates, n_stocks, n_chars), dtype=np.float32) - np.float32(0.5)
    Z += 0.5 * (rng.random((n_dates, n_stocks, 1), dtype=np.float32) - np.float32(0.5))
    slopes = np.where(np.arange(n_chars) % 5 == 0, 0.01, 0.0).astype(np.float32)
    returns = 0.005 + Z @ slopes + 0.1 * rng.standard_normal((n_dates, n_stocks), dtype=np.float32)
    returns[rng.random(returns.shape, dtype=np.float32) < 0.1] = np.nan
    return Panel.from_arrays(returns, Z)
