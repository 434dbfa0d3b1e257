"""Cross-sectional weighted least squares with industries, against toraniko and skfolio.

252 days of 4,000 stocks, 60 industries and 12 styles, square root of capitalisation as weights. The three do the same
work on the same numbers: factor returns of market, industries and styles at every date, and residuals.

toraniko regresses on industries first and on styles afterwards, which is the joint regression if styles have no mean
within industries, and makes the returns of industries sum to zero without weights: so styles are drawn that way, and
what is compared are the returns of styles and of market plus industry. It asks for numpy 1 and polars 1, and so cannot
be among the locked dependencies; it runs beside newer ones, and its row is there if it has been put in place by
``uv pip install --no-deps toraniko==1.1.1``.

skfolio's `CharacteristicsFactorModel` does more than a regression: what is timed are its parts that do it, in two rows.
The first goes from exposures to factor returns and residuals: basis of the constraint by capitalisation, exposures in
that basis, regression. The change of basis takes most of that, so the second row is the regression alone, with
exposures already in the basis, against our factor returns from the panel.

Every function is run equally often, and its best time counts; toraniko runs once, on some of the dates.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from benchmarks.harness import Measured, Row, measure
from models import CrossSectionalModel, Panel
from models.arrays import FloatArray

Result = tuple[FloatArray, FloatArray]
N_STYLES = 12
REPEATS = 2
TORANIKO_TARGET, SKFOLIO_TARGET = 100.0, 4.0


def run(*, quick: bool = False) -> list[Row]:
    """Time all three on one simulated panel; toraniko on fewer of its dates, since each costs the same."""
    n_dates, n_stocks, n_industries = (20, 500, 11) if quick else (252, 4000, 60)
    panel = simulate(n_dates, n_stocks, n_industries)
    work = f"cross-sectional WLS, {n_dates} days x {n_stocks:,} stocks, {n_industries} industries, {N_STYLES} styles"
    model = CrossSectionalModel().fit(panel)

    def regress() -> Result:
        returns = model.factor_returns(panel)
        return returns.values, panel.returns.values - model.explained_returns(panel, returns.values).values

    ours = measure(regress, repeats=REPEATS)
    alone = measure(lambda: model.factor_returns(panel), repeats=REPEATS)
    rows = _against_skfolio(work, panel, ours, alone)
    if importlib.util.find_spec("toraniko") is None:
        print("toraniko is not installed: see the docstring of benchmarks/cross_section.py")
        return rows
    once = measure(regress)
    return [_against_toraniko(work, panel, once), *rows]


def simulate(n_dates: int, n_stocks: int, n_industries: int) -> Panel:
    """Draw a balanced panel whose styles have weighted mean 0 within each industry at each date."""
    rng = np.random.default_rng(0)
    codes = np.broadcast_to(np.arange(n_stocks, dtype=np.int16) % n_industries, (n_dates, n_stocks))
    cap = np.exp(1.5 * rng.standard_normal((1, n_stocks))) * np.exp(0.1 * rng.standard_normal((n_dates, n_stocks)))
    styles = rng.standard_normal((n_dates, n_stocks, N_STYLES))
    root = np.sqrt(cap)
    for industry in range(n_industries):
        held = codes[0] == industry
        share = root[:, held] / root[:, held].sum(axis=1, keepdims=True)
        styles[:, held] -= (share[..., None] * styles[:, held]).sum(axis=1, keepdims=True)
    factors = 0.01 * rng.standard_normal((n_dates, 1 + n_industries + N_STYLES))
    returns = factors[:, :1] + factors[:, 1 + codes[0]] + (styles @ factors[:, -N_STYLES:, None])[..., 0]
    returns += 0.02 * rng.standard_normal(returns.shape)
    names = [f"industry{code:02d}" for code in range(n_industries)]
    chars = [f"style{style:02d}" for style in range(N_STYLES)]
    return Panel.from_arrays(
        returns, styles.astype(np.float32), market_weight=cap, industry=codes, industries=names, chars=chars
    )


def _against_skfolio(work: str, panel: Panel, ours: Measured[Result], alone: Measured[Any]) -> list[Row]:
    from skfolio.linear_model import CSLinearRegression
    from skfolio.prior._model._family_constraint_basis import compute_family_constraint_basis

    codes, cap = panel.industry.values, panel.market_weight.values.astype(np.float64)
    n_industries = len(panel.industries)
    dummies = (codes[..., None] == np.arange(n_industries)).astype(np.float64)
    styles = panel.characteristics.values.astype(np.float64)
    exposures = np.concatenate([np.ones((*codes.shape, 1)), dummies, styles], axis=2)
    names = np.array(["market", *panel.industries, *panel.chars])
    families = np.array(["market", *["industry"] * n_industries, *["style"] * len(panel.chars)])

    basis, _ = compute_family_constraint_basis([("industry", None)], exposures, cap, names, families)

    def chain() -> Result:
        basis, _ = compute_family_constraint_basis([("industry", None)], exposures, cap, names, families)
        reduced = basis.reduce_exposures(exposures)
        fit = CSLinearRegression().fit(reduced, panel.returns.values, cs_weights=np.sqrt(cap))
        return basis.expand_factor_returns(fit.coef_), panel.returns.values - fit.predict(reduced)

    theirs = measure(chain, repeats=REPEATS)
    gap = max(float(np.abs(mine - other).max()) for mine, other in zip(ours.value, theirs.value, strict=True))
    reduced = basis.reduce_exposures(exposures)
    fit = measure(
        lambda: CSLinearRegression().fit(reduced, panel.returns.values, cs_weights=np.sqrt(cap)), repeats=REPEATS
    )
    return [
        Row(
            work=f"{work}: {what}",
            ours_seconds=mine.seconds,
            peer="skfolio",
            peer_seconds=other.seconds,
            note=note,
            target=SKFOLIO_TARGET,
            ours_peak_bytes=mine.peak_bytes,
            peer_peak_bytes=other.peak_bytes,
        )
        for what, mine, other, note in (
            ("constraint, regression, residuals", ours, theirs, f"agree to {gap:.0e}; its dense exposures made before"),
            ("regression alone", alone, fit, "its exposures are in the basis of the constraint before the clock"),
        )
    ]


def _against_toraniko(work: str, panel: Panel, ours: Measured[Result]) -> Row:
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    from toraniko.model import estimate_factor_returns

    n_dates = len(panel.dates)
    timed = min(n_dates, 6)
    frames = _frames(panel, timed)
    theirs = measure(lambda: estimate_factor_returns(*frames, winsor_factor=None, residualize_styles=True))
    table = theirs.value[0].sort("date")
    industries = ours.value[0][:timed, :1] + ours.value[0][:timed, 1 : 1 + len(panel.industries)]
    other = table["market"].to_numpy()[:, None] + table.select(panel.industries).to_numpy()
    gap = float(np.abs(industries - other).max())
    styles = np.abs(ours.value[0][:timed, -N_STYLES:] - table.select(panel.chars).to_numpy()).max()
    return Row(
        work=work,
        ours_seconds=ours.seconds,
        peer="toraniko",
        peer_seconds=theirs.seconds * n_dates / timed,
        note=f"its time is that of {timed} dates of {n_dates}, scaled; industries agree to {gap:.0e}, styles to "
        f"{styles:.0e}",
        target=TORANIKO_TARGET,
    )


def _frames(panel: Panel, n_dates: int) -> list[Any]:
    """Long polars frames as toraniko asks for them."""
    import polars as pl

    dates, tickers = panel.dates[:n_dates], panel.tickers
    key = {"date": np.repeat(dates.to_numpy(), len(tickers)), "symbol": np.tile(tickers, n_dates)}

    def long(columns: dict[str, FloatArray]) -> Any:
        return pl.DataFrame(key | {name: values[:n_dates].ravel() for name, values in columns.items()})

    styles = panel.characteristics.values.astype(np.float64)
    codes = panel.industry.values
    return [
        long({"asset_returns": panel.returns.values}),
        long({"market_cap": panel.market_weight.values.astype(np.float64)}),
        long({name: (codes == code).astype(np.float64) for code, name in enumerate(panel.industries)}),
        long({name: styles[..., place] for place, name in enumerate(panel.chars)}),
    ]
