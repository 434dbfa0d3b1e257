"""IPCA against the `ipca` package. All comparisons lie here."""

from __future__ import annotations

import numpy as np
import pytest
from instrumented import given_panel, grunfeld_panel, instrumented
from ipca import InstrumentedPCA

from models.families.ipca import IPCA
from models.panel import Panel


def assert_agrees(panel: Panel, n_latent: int, *, intercept: bool, observed: bool, mode: str = "portfolio") -> None:
    chosen = ("mkt",) if observed else ()
    model = IPCA(n_latent, intercept=intercept, observed=chosen, mode=mode, tol=1e-12, max_iter=20_000).fit(panel)
    assert model.converged_
    known = panel.mask.values
    date, stock = np.nonzero(known)
    r, Z = panel.returns.values[known].astype(float), panel.characteristics.values[known].astype(float)
    peer = InstrumentedPCA(n_latent + observed, intercept=intercept, iter_tol=1e-12, max_iter=20_000)
    given = panel.factors.values.T if observed else None
    peer.fit(Z, r, np.column_stack([stock, date]), PSF=given, data_type="portfolio", quiet=True)
    ours = model.gamma_.values  # the space, and the normalisation within
    np.testing.assert_allclose(ours, peer.Gamma[:, : ours.shape[1]], atol=1e-6)
    if intercept:
        np.testing.assert_allclose(model.gamma_alpha_.values, peer.Gamma[:, -1], atol=1e-6)
    factors = peer.Factors[: peer.Gamma.shape[1]]
    fitted = np.einsum("il,lk,ki->i", Z, peer.Gamma, factors[:, date])
    predicted = Z @ peer.Gamma @ factors.mean(axis=1)
    scale = np.abs(fitted).max()
    if mode == "portfolio" and not (intercept or observed):
        np.testing.assert_allclose(model.fitted_returns(panel).values[known], fitted, atol=1e-6 * scale)
        np.testing.assert_allclose(model.expected_returns(panel).values[known], predicted, atol=1e-6 * scale)
    for name, values in (("total_r2", fitted), ("predictive_r2", predicted)):
        theirs = 1.0 - np.square(r - values).sum() / np.square(r).sum()
        assert model.score(panel)[name] == pytest.approx(theirs, abs=1e-6)


SLOW = [pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 2), (2, 3))]


@pytest.mark.parametrize(("seed", "n_factors"), [(0, 1), *SLOW])
def test_random_unbalanced_panels_agree(seed: int, n_factors: int) -> None:
    returns, characteristics, _ = instrumented(n_factors=3, seed=seed)
    rng = np.random.default_rng(seed)
    returns[rng.random(returns.shape) < 0.2] = np.nan
    characteristics[rng.random(returns.shape) < 0.1] = np.nan
    assert_agrees(Panel.from_arrays(returns, characteristics), n_factors, intercept=False, observed=False)


def test_grunfeld_agrees() -> None:
    assert_agrees(grunfeld_panel(constant=False), 1, intercept=False, observed=False)


@pytest.mark.parametrize("mode", ["portfolio", "panel"])
@pytest.mark.parametrize(
    ("intercept", "observed"), [(True, False), (False, True), (True, True)], ids=["intercept", "observed", "both"]
)
@pytest.mark.parametrize("source", ["random", "grunfeld"])
def test_an_intercept_and_observed_factors_agree(source: str, intercept: bool, observed: bool, mode: str) -> None:
    panel, n_latent = (given_panel(), 2) if source == "random" else (given_grunfeld_panel(), 1)
    assert_agrees(panel, n_latent, intercept=intercept, observed=observed, mode=mode)


def given_grunfeld_panel() -> Panel:
    panel = grunfeld_panel(constant=True)
    market = 1.0 + np.random.default_rng(0).standard_normal((len(panel.dates), 1))
    return Panel(
        panel.data.assign(factors=(("date", "observed_factor"), market)).assign_coords(observed_factor=["mkt"])
    )
