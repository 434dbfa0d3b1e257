"""Variance of phi(X, f): exact where it is known, and the same in any coordinates of the factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from models.risk.nonlinear import local_loadings, nonlinear_risk
from models.risk.portfolio import RiskModel
from schemas.errors import ConfigError, DataError

TICKERS, FACTORS = [f"S{n}" for n in range(12)], ["f1", "f2", "f3"]


@pytest.fixture
def market() -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((3, 3))
    return {
        "loadings": xr.DataArray(rng.standard_normal((12, 3)), {"ticker": TICKERS, "factor": FACTORS}),
        "omega": xr.DataArray(1e-4 * half @ half.T, {"factor": FACTORS, "factor_": FACTORS}, ("factor", "factor_")),
        "specific_variance": xr.DataArray(rng.uniform(1e-4, 4e-4, 12), {"ticker": TICKERS}),
        "weights": xr.DataArray(rng.dirichlet(np.ones(12), 2), {"portfolio": ["a", "b"], "ticker": TICKERS}),
        "mean": xr.DataArray([0.001, -0.002, 0.0005], {"factor": FACTORS}),
    }


def risk(market: dict[str, xr.DataArray], response, **more) -> xr.Dataset:
    return nonlinear_risk(response, **{name: market[name] for name in market if name != "loadings"}, **more)


def test_a_linear_response_has_the_variance_of_the_linear_model_in_all_three_ways(market) -> None:
    X = torch.as_tensor(market["loadings"].values)
    fat = np.random.default_rng(1).standard_t(4, (500, 3))
    model = RiskModel(market["loadings"], market["omega"], market["specific_variance"])
    for shocks in (None, fat):
        found = risk(market, lambda f: X @ f, shocks=shocks, n_draws=1000)
        for name in ("linearised", "quadratic", "simulated"):
            np.testing.assert_allclose(found[name] + found.specific, model.variance(market["weights"]), rtol=1e-11)
        assert (found.standard_error < 1e-12 * found.simulated).all()
    here = local_loadings(lambda f: X @ f, market["mean"], market["specific_variance"])
    np.testing.assert_allclose(here, market["loadings"], atol=1e-14)


def test_a_quadratic_response_of_normal_factors_has_its_known_variance(market) -> None:
    """With w'phi = x'f + c (x'f)^2 and mean zero it is s^2 + 2 c^2 s^4, and s^2 linearised."""
    X, c = torch.as_tensor(market["loadings"].values), 30.0
    alone = {**market, "weights": market["weights"].isel(portfolio=0, drop=True), "mean": 0.0 * market["mean"]}
    w = torch.as_tensor(alone["weights"].values)

    def response(f: torch.Tensor) -> torch.Tensor:
        return X @ f + c * (w @ X @ f) ** 2 * torch.ones(12, dtype=torch.float64)

    found = risk(alone, response, n_draws=200_000)
    x = alone["weights"].values @ market["loadings"].values
    s2 = float(x @ market["omega"].values @ x)
    assert found.linearised.item() == pytest.approx(s2, rel=1e-11)
    assert found.quadratic.item() == pytest.approx(s2 + 2 * c**2 * s2**2, rel=1e-11)
    error = found.standard_error.item()
    assert 0.0 < error < 0.02 * s2
    assert abs(found.simulated.item() - found.quadratic.item()) < 4 * error
    assert found.difference.item() == pytest.approx(found.simulated.item() - s2, rel=1e-11)


def test_other_coordinates_of_the_factors_change_nothing(market) -> None:
    """With f = A g and Omega_f = A Omega_g A', phi(f) and phi(A g) are the same returns."""
    net = (
        torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 12))
        .double()
        .requires_grad_(requires_grad=False)
    )
    A = np.random.default_rng(2).standard_normal((3, 3))
    other = {**market, "mean": market["mean"].copy(data=np.linalg.solve(A, market["mean"].values))}
    inverse = np.linalg.inv(A)
    other["omega"] = market["omega"].copy(data=inverse @ market["omega"].values @ inverse.T)
    one = risk(market, lambda f: net(40.0 * f))
    two = risk(other, lambda g: net(40.0 * torch.as_tensor(A) @ g), n_draws=20_000)
    for name in ("linearised", "quadratic", "specific"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-9)
    assert (abs(one.simulated - two.simulated) < 5 * np.hypot(one.standard_error, two.standard_error)).all()


def test_what_cannot_be_is_refused(market) -> None:
    with pytest.raises(DataError, match="not finite"):
        risk(market, lambda f: torch.log(f[0] - 1.0) * torch.ones(12))
    with pytest.raises(DataError, match=r"shape \(3,\) for 12 tickers"):
        risk(market, lambda f: f)
    with pytest.raises(DataError, match="negative eigenvalue"):
        risk({**market, "omega": -market["omega"]}, lambda f: f.sum() * torch.ones(12))
    with pytest.raises(DataError, match="labels of weights"):
        risk({**market, "weights": market["weights"][:, ::-1]}, lambda f: f.sum() * torch.ones(12))
    with pytest.raises(ConfigError, match="more than 6 draws of 3 factors"):
        risk(market, lambda f: f.sum() * torch.ones(12), shocks=np.ones((5, 3)))
