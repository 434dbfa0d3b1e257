"""What moves loadings: planted characteristics, surfaces at their grid, canonical correlations by another library."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from statsmodels.multivariate.cancorr import CanCorr

from models import IPCA, PCA, CrossSectionalModel, KernelIPCA, Panel
from models.evaluation import explaining
from models.evaluation.explaining import (
    canonical_correlations,
    characteristic_importance,
    response_curves,
    response_surface,
)
from models.families.base import FactorModel, ModelState, uncentred_r2
from schemas.errors import DataError, ModelError

CHARS = ["level", "bend", "idle"]


@cache
def world() -> Panel:
    """Simulate loadings c1 + 3 c2^2 of two of three characteristics whose medians are not zero."""
    rng = np.random.default_rng(3)
    values = (rng.standard_normal((120, 30, 3)) ** 2 / 4.0).astype(np.float32)
    values[rng.random(values.shape[:2]) < 0.1] = np.nan
    factor = 0.01 + 0.04 * rng.standard_normal((120, 1))
    returns = (values[..., 0] + 3.0 * values[..., 1] ** 2) * factor + 0.01 * rng.standard_normal((120, 30))
    returns[rng.random(returns.shape) < 0.05] = np.nan
    return Panel.from_arrays(returns, values, chars=CHARS)


def of_chars(panel: Panel, names: list[str]) -> Panel:
    return Panel(panel.data.sel(char=names))


@cache
def linear() -> IPCA:
    model: IPCA = IPCA(n_factors=2).fit(of_chars(world(), CHARS[:2]))
    return model


@cache
def bent() -> KernelIPCA:
    model: KernelIPCA = KernelIPCA(n_factors=1, n_features=6, n_waves=6).fit(world())
    return model


class Lagged(FactorModel):
    """Loadings are the first characteristic, today's and that of the row before."""

    row_memory = 1  # type: ignore[assignment]

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # of the protocol
        self.factors_, self.premia_ = ["lagged"], np.zeros(1)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        first = panel.characteristics.isel(char=[0]).astype(np.float64)
        return (first + first.shift(date=1)).rename(char="factor").assign_coords(factor=self.factors_)

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(np.full((len(panel.dates), 1), 0.02), coords, ("date", "factor"))

    def state(self) -> ModelState:
        return ModelState({})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # it has none
        return cls(**params)


def drop_by_hand(model: FactorModel, panel: Panel, place: int) -> float:
    """R2 of the model less that of its loadings with one characteristic at its median, whatever the factors then do."""
    values, covered = panel.characteristics.values.copy(), panel.coverage.values
    values[covered, place] = np.median(values[covered, place])
    changed = Panel(panel.data.assign(characteristics=(("date", "ticker", "char"), values)))
    explained = (model.loadings(changed) * model.factor_returns(panel)).sum("factor", skipna=False)
    return model.score(panel)["total_r2"] - uncentred_r2(panel, explained)


@pytest.mark.parametrize("model", [linear, bent, lambda: Lagged().fit(world())], ids=["ipca", "kernel", "lagged"])
def test_importance_is_the_drop_of_r2_whatever_the_blocks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = characteristic_importance(model(), world())
    expected = [drop_by_hand(model(), world(), place) for place in range(3)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(explaining, "_ROWS", 50)
    np.testing.assert_allclose(characteristic_importance(model(), world()).values, found.values, rtol=1e-9, atol=1e-12)


def test_what_has_no_role_counts_nothing_and_the_planted_one_leads() -> None:
    assert characteristic_importance(linear(), world()).sel(char="idle") == 0.0, "the model does not know it"
    found = characteristic_importance(bent(), world()).to_series()
    assert found.idxmax() == "bend"
    assert found["bend"] > 0.3
    assert abs(found["idle"]) < 0.01
    outside = world().data["returns"].where(world().data["mask"], 7.0)
    absurd = Panel(world().data.assign(returns=outside))
    assert characteristic_importance(bent(), absurd).identical(characteristic_importance(bent(), world()))


def test_the_surface_of_a_linear_model_has_the_slope_of_gamma() -> None:
    found = response_surface(linear(), of_chars(world(), CHARS[:2]), "bend", points=5)
    values = of_chars(world(), CHARS[:2]).characteristics.values[world().coverage.values]
    low, high = np.quantile(values[:, 1], [0.01, 0.99])
    np.testing.assert_allclose(found["value"].values, np.linspace(low, high, 5), rtol=1e-6)
    expected = np.column_stack([np.full(5, np.median(values[:, 0])), found["value"].values]) @ linear().gamma_.values
    np.testing.assert_allclose(found.values, expected[:, :2], rtol=1e-6)


def test_a_surface_is_what_a_stock_with_these_characteristics_is_given() -> None:
    found = response_surface(bent(), world(), "bend", "level", points=4)
    assert found.dims == ("value", "value_", "factor")
    values = world().characteristics.values.copy()
    covered = np.flatnonzero(world().coverage.values[60])[:16]
    one, other = np.meshgrid(found["value"].values, found["value_"].values, indexing="ij")
    idle = np.median(values[world().coverage.values][:, 2])
    values[60, covered] = np.column_stack([other.ravel(), one.ravel(), np.full(16, idle)])
    placed = Panel(world().data.assign(characteristics=(("date", "ticker", "char"), values)))
    expected = bent().loadings(placed).values[60, covered]
    np.testing.assert_allclose(found.values.reshape(16, -1), expected, rtol=1e-5, atol=1e-7)


def test_curves_are_the_surfaces_of_each_characteristic_that_varies() -> None:
    data = world().data.assign(characteristics=world().characteristics.where(world().data["char"] != "idle", 1.0))
    panel = Panel(data.assign(characteristics=data["characteristics"].where(world().coverage)))
    model = Lagged().fit(panel)
    curves = response_curves(model, panel, points=3)
    assert curves["char"].values.tolist() == CHARS[:2]
    np.testing.assert_allclose(curves.sel(char="level").values[:, 0], 2.0 * curves["value"].sel(char="level").values)
    for name in CHARS[:2]:
        alone = response_surface(model, panel, name, points=3)
        np.testing.assert_array_equal(curves.sel(char=name).values, alone.values)
        np.testing.assert_array_equal(curves["value"].sel(char=name).values, alone["value"].values)
    with pytest.raises(DataError, match="has no two values"):
        response_surface(model, panel, "idle")


def test_what_is_no_function_of_characteristics_is_refused() -> None:
    beside = CrossSectionalModel(orthogonalise=[("bend", ["level"])]).fit(world())
    for model in (PCA(n_factors=2, min_observations=20).fit(world()), beside):
        with pytest.raises(ModelError, match="no function of a stock's characteristics alone"):
            response_surface(model, world(), "bend")
    with pytest.raises(DataError, match=r"lacks the characteristic 'size'; it has \['level', 'bend', 'idle'\]"):
        response_surface(linear(), world(), "size")
    nobody = Panel.from_arrays(np.zeros((3, 2)), np.full((3, 2, 3), np.nan), chars=CHARS)
    with pytest.raises(DataError, match="covers no stock"):
        characteristic_importance(linear(), nobody)


def series(values: np.ndarray, first: str = "2020-01-01") -> xr.DataArray:
    coords = {"date": pd.bdate_range(first, periods=len(values)), "factor": np.arange(values.shape[1])}
    return xr.DataArray(values, coords, ("date", "factor"))


def test_canonical_correlations_are_one_under_rotation_and_those_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    factors = 0.001 + 0.01 * rng.standard_normal((200, 3))
    turned = factors @ np.linalg.qr(rng.standard_normal((3, 3)))[0] + [0.0, 1.0, 2.0]
    np.testing.assert_allclose(canonical_correlations(series(factors), series(turned)).values, 1.0, atol=1e-12)
    mixed = factors @ rng.standard_normal((3, 5)) + 0.02 * rng.standard_normal((200, 5))
    found = canonical_correlations(series(factors), series(100.0 * mixed))
    np.testing.assert_allclose(found.values, CanCorr(mixed, factors).cancorr, atol=1e-9)
    mixed[:20] = np.nan
    later = canonical_correlations(series(factors), series(mixed)[10:])
    np.testing.assert_allclose(later.values, CanCorr(mixed[20:], factors[20:]).cancorr, atol=1e-9)


def test_factors_that_do_not_vary_have_no_correlation_and_few_dates_are_refused() -> None:
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((50, 2))
    doubled = np.column_stack([factors[:, 0], 3.0 * factors[:, 0], np.full(50, 0.1)])
    np.testing.assert_allclose(canonical_correlations(series(factors), series(doubled)).values, [1.0, 0.0], atol=1e-12)
    still = canonical_correlations(series(factors), series(np.full((50, 1), 0.1)))
    assert still.values.tolist() == [0.0]
    with pytest.raises(DataError, match="5 dates on which all factors are known are too few"):
        canonical_correlations(series(factors[:5]), series(factors[:5]))
