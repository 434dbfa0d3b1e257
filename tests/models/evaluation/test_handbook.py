"""The empirical notes of a model: the numbers that one computes by hand from the published rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fixtures_versions import make_versions

from deploy.console_handbook import markdown
from models.evaluation.handbook import handbook
from models.evaluation.structure import variance_inflation
from schemas.errors import ModelError


@pytest.fixture(scope="module")
def version() -> xr.Dataset:
    return make_versions(("ipca",), n_dates=600)[0].dataset


def test_numbers_are_those_of_the_rows_out_of_sample(version: xr.Dataset) -> None:
    found = handbook(version)
    late = version.isel(date=np.flatnonzero(version["out_of_sample"].values))
    year = late["date"].dt.year == 2018
    last = late.isel(date=np.flatnonzero(year.values))
    missed = ((1.0 - last["total_r2"]) * last["total_sst"]).sum()
    power = found.explanatory_power.loc[2018]
    assert power["total_r2"] == pytest.approx(float(1.0 - missed / last["total_sst"].sum()))
    assert found.coverage["dates"].sum() == late.sizes["date"]
    assert found.coverage.loc[2018, "stocks"] == pytest.approx(
        float(last["loadings"].isel(factor=0).notnull().sum("ticker").mean())
    )
    f = late["factor_returns"].to_pandas()
    assert found.factors["t"].to_numpy() == pytest.approx((f.mean() / f.sem()).to_numpy())
    wealth = (1.0 + f).cumprod()
    assert found.factors["drawdown"].to_numpy() == pytest.approx((wealth / wealth.cummax() - 1.0).min().to_numpy())
    z = late["standardised_return"].to_pandas()
    assert found.portfolios["bias"].to_numpy() == pytest.approx(z.std(axis=1).to_numpy())
    assert found.correlation.loc["f2", "f1"] == pytest.approx(f["f1"].corr(f["f2"]))
    months = late["loadings"].isel(date=slice(None, None, 21)).values.astype(np.float64)
    inflation = [variance_inflation(row[np.isfinite(row).all(axis=1)]) for row in months]
    assert found.factors["inflation"].to_numpy() == pytest.approx(np.mean(inflation, axis=0))


def test_what_happens_in_sample_and_the_order_of_tickers_do_not_matter(version: xr.Dataset) -> None:
    inside = ~version["out_of_sample"]
    other = version.assign(
        factor_returns=version["factor_returns"].where(~inside, 9.0), total_r2=version["total_r2"].where(~inside, 0.5)
    )
    one = handbook(version)
    for changed in (other, version.isel(ticker=slice(None, None, -1))):
        two = handbook(changed)
        for name in ("coverage", "explanatory_power", "factors", "correlation", "portfolios"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), rtol=1e-9)


def test_a_version_without_a_date_out_of_sample_is_refused(version: xr.Dataset) -> None:
    with pytest.raises(ModelError, match="no date of the version is out of sample yet"):
        handbook(version.assign(out_of_sample=xr.zeros_like(version["out_of_sample"])))
    with pytest.raises(ModelError, match="lacks loadings"):
        handbook(version.drop_vars("loadings"))


def test_the_page_has_every_table_and_factor(version: xr.Dataset) -> None:
    page = markdown(handbook(version), "Handbook")
    assert page.count("\n## ") == 5
    assert "| f1 |" in page
    assert "nan" not in page
    widths = {len(row.split("|")) for row in page.split("## Factors")[1].split("## ")[0].splitlines() if row}
    assert len(widths) == 1
