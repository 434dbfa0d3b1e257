"""The risk of a book by a published version: against the dense covariance, whatever its units and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fixtures_versions import make_versions
from scipy.stats import norm

from models import RiskModel
from models.risk.book import BookRisk, VersionRisk
from schemas.errors import DataError, ModelError, PublishError

BOOK = pd.Series({"T003": 0.5, "T007": 0.4, "T011": 0.3, "T012": -0.25, "T019": 0.1})


@pytest.fixture(scope="module")
def version() -> VersionRisk:
    rows = make_versions(("ipca",), n_dates=300)[0].dataset
    industries = pd.Series(["energy", "banks", "tech", ""] * 5, index=rows.indexes["ticker"])
    return VersionRisk(rows, industries)


def sigma(version: VersionRisk, date: str | None = None) -> pd.DataFrame:
    rows = version.rows.sel(date=version.as_of(date))
    x = rows["loadings"].values.astype(np.float64)
    covariance = x @ rows["omega"].values @ x.T + np.diag(rows["specific_variance"].values.astype(np.float64))
    return pd.DataFrame(covariance, index=version.tickers, columns=version.tickers)


def assert_same(one: BookRisk, other: BookRisk) -> None:
    pd.testing.assert_frame_equal(one.summary(), other.summary(), rtol=1e-12)
    pd.testing.assert_frame_equal(one.by_ticker.sort_index(), other.by_ticker.sort_index(), rtol=1e-9)


def test_numbers_are_those_of_the_dense_covariance_and_parts_add_up(version: VersionRisk) -> None:
    found, dense = version.risk(BOOK, benchmark="equal_weight"), sigma(version)
    w = BOOK.reindex(version.tickers, fill_value=0.0)
    b = version.rows["weights"].sel(portfolio="equal_weight").isel(date=-1).to_series().astype(np.float64)
    volatility, active = np.sqrt(w @ dense @ w), np.sqrt((w - b) @ dense @ (w - b))
    told = found.summary()["value"]
    assert told["volatility"] == pytest.approx(volatility, rel=1e-10)
    assert told["volatility_annual"] == pytest.approx(volatility * np.sqrt(252), rel=1e-10)
    assert told["value_at_risk_95"] == pytest.approx(volatility * norm.ppf(0.95), rel=1e-10)
    assert told["expected_shortfall_99"] == pytest.approx(volatility * norm.pdf(norm.ppf(0.99)) / 0.01, rel=1e-10)
    assert told["beta"] == pytest.approx((w @ dense @ b) / (b @ dense @ b), rel=1e-10)
    assert told["tracking_error"] == pytest.approx(active, rel=1e-10)
    assert told[["net_weight", "gross_weight"]].tolist() == pytest.approx([1.05, 1.55])
    for one, total in ((found, volatility), (found.active, active)):
        assert one is not None
        assert one.by_group is not None
        assert one.by_factor["contribution"].sum() + one.specific == pytest.approx(total, rel=1e-10)
        assert one.by_ticker["share"].sum() == pytest.approx(1.0, rel=1e-10)
        assert one.by_group["contribution"].sum() == pytest.approx(total, rel=1e-10)
        assert one.by_ticker["diversification"].sum() == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(
        found.by_ticker["volatility"], np.sqrt(np.diag(dense.loc[BOOK.index, BOOK.index])), rtol=1e-10
    )
    np.testing.assert_allclose(found.by_ticker["marginal"], (dense @ w)[BOOK.index] / volatility, rtol=1e-9)
    assert found.diversifiers(1).index[0] == "T012", "the short position takes risk away"
    assert {"energy", "banks", "tech", "unknown"} >= set(found.by_group.index) > {"unknown"}  # type: ignore[union-attr]


def test_order_and_kind_of_the_weights_do_not_matter_and_leverage_scales(version: VersionRisk) -> None:
    found = version.risk(BOOK)
    assert_same(found, version.risk(BOOK[::-1]))
    assert_same(found, version.risk(BOOK.to_dict()))
    assert_same(found, version.risk(BOOK.reindex(version.tickers, fill_value=0.0).to_numpy()))
    assert version.risk(3.0 * BOOK).volatility == pytest.approx(3.0 * found.volatility, rel=1e-12)
    assert version.risk(BOOK, benchmark=BOOK).tracking_error == 0.0
    table = found.table()
    assert table[(table["part"] == "ticker") & (table["measure"] == "contribution")]["value"].sum() == pytest.approx(
        found.volatility
    )


def test_what_is_not_covered_is_said_and_its_side_stands_for_it(version: VersionRisk) -> None:
    early = str(version.rows.indexes["date"][90].date())  # T000 to T003 are not covered yet
    book = pd.Series({"T003": 0.1, "NEW": 0.1, "T007": 0.5, "T011": 0.3, "T012": -0.2})
    found = version.risk(book, date=early)
    assert found.uncovered.to_dict() == {"T003": 0.1, "NEW": 0.1}
    assert found.uncovered_share == pytest.approx(0.2 / 1.2)
    whole = pd.Series({"T007": 0.625, "T011": 0.375, "T012": -0.2})
    assert found.volatility == pytest.approx(version.risk(whole, date=early).volatility, rel=1e-12)
    assert f"{found.date:%F}" == early
    between = version.risk(whole, date=pd.Timestamp(early) + pd.Timedelta(hours=7))
    assert between.date == found.date, "the last date at or before the one that is asked for"


def test_what_is_no_version_is_told(tmp_path: Path) -> None:
    for nowhere in (tmp_path / "none", tmp_path):
        with pytest.raises(PublishError, match="no published version can be opened there"):
            RiskModel.open(nowhere)
    with pytest.raises(PublishError, match=r"latest\.json names"):
        RiskModel.open("s3://bucket/us/ipca/latest")
    with pytest.raises(PublishError, match="lacks loadings, omega"):
        VersionRisk(xr.Dataset())


@pytest.mark.parametrize(
    ("weights", "options", "error", "message"),
    [
        ({"T001": np.nan}, {}, DataError, "nan for T001"),
        ([0.5, 0.5], {}, DataError, r"shape \(2,\); us_large/ipca has 20 tickers"),
        ({"T001": 0.0}, {}, DataError, "holds nothing"),
        (pd.Series([1.0, 1.0], ["T001", "T001"]), {}, DataError, "T001 twice"),
        ({"AAPL": 1.0}, {}, ModelError, "covers nothing that is held long, such as AAPL"),
        ({"T001": 1.0, "AAPL": -1.0}, {}, ModelError, "nothing that is held long, or nothing that is held short"),
        ({"T001": 1.0}, {"benchmark": "equal"}, ModelError, "no portfolio 'equal'; it has equal_weight"),
        ({"T001": 1.0}, {"date": "2016-12-01"}, ModelError, "begins on 2017-01-02"),
        ({"T001": 1.0}, {"date": "2017-01-05"}, ModelError, "no forecast as of 2017-01-05"),
    ],
)
def test_a_mistake_is_one_sentence(
    version: VersionRisk, weights: object, options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        version.risk(weights, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
