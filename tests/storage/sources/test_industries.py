"""Industries on their way from a file to what a model sees: known from their date on, and named once and for all."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from running import ingested
from small_market import make_market, write_config

from schemas.errors import DataError, SourceError
from schemas.settings import Settings
from schemas.sources import FilesOrigin, IndustrySource, LongPrices
from storage.configs import load_spec
from storage.cube import Cube
from storage.sources import read_industries, read_market
from tasks.panels import Sample, build_panel
from tasks.publishing import plan_versions
from tasks.workspace import Workspace

HERE = Settings()
STOCKS = 4
CHANGE = date(2015, 6, 1)


@pytest.fixture
def market(tmp_path: Path) -> xr.Dataset:
    bars = make_market(stocks=STOCKS, end="2015-12-31")
    unlisted = (pl.col("ticker") == "S003") & (pl.col("date") < CHANGE)
    bars.filter(~unlisted).write_parquet(tmp_path / "prices.parquet")
    source = LongPrices(origin=FilesOrigin(paths=(tmp_path / "prices.parquet",)))
    return read_market(source, settings=HERE, frequency="daily", calendar="XNYS")


def read(folder: Path, market: xr.Dataset, rows: dict[str, list], **fields: str) -> xr.DataArray:
    """Names of the industries at each date and ticker; empty where unknown."""
    pl.DataFrame(rows).write_csv(folder / "industries.csv")
    origin = FilesOrigin(paths=(folder / "industries.csv",))
    source = IndustrySource(origin=origin, **{"industry": "sector", **fields})
    found = read_industries(source, settings=HERE, frequency="daily", market=market)
    return found["industry"].copy(data=np.append(found["industry_name"].values, "")[found["industry"].values])


def test_one_row_per_ticker_holds_from_the_first_price_on(market: xr.Dataset, tmp_path: Path) -> None:
    rows = {"ticker": ["S003", "S000", "S001", "UNKNOWN"], "sector": ["oil", " bank ", None, "bank"]}
    names = read(tmp_path, market, rows)
    assert (names.sel(ticker="S000") == "bank").all()
    assert (names.sel(ticker=["S001", "S002"]) == "").all()
    listed = names.indexes["date"] >= str(CHANGE)
    assert (names.sel(ticker="S003").values == np.where(listed, "oil", "")).all(), (
        "nobody knew a stock before its listing"
    )


def test_a_dated_row_holds_until_the_next_one_and_never_before(market: xr.Dataset, tmp_path: Path) -> None:
    rows = {
        "from": ["2014-03-03", "2015-06-06", "2015-06-07", "2015-09-01", "2015-07-01", "2016-02-01"],
        "id": ["S000", "S000", "S000", "S000", "S001", "S002"],
        "sic": [10, 20, 30, None, 20, 10],
    }
    names = read(tmp_path, market, rows, ticker="id", industry="sic", date="from").to_pandas()
    assert set(names["S000"][:"2015-06-05"]) == {"10"}, "a row from before the market's first date holds on it"
    assert set(names["S000"]["2015-06-08":"2015-08-31"]) == {"30"}, "of a weekend's rows the last one counts"
    assert set(names["S000"]["2015-09-01":]) == {""}, "an empty name says that it is not known any more"
    assert set(names["S001"][:"2015-06-30"]) == {""}
    assert set(names["S001"]["2015-07-01":]) == {"20"}
    assert set(names["S002"]) == {""}, "a row of a later date does not count yet"


@pytest.mark.parametrize(
    ("rows", "fields", "error", "message"),
    [
        ({"ticker": ["S000"], "gics": ["a"]}, {}, SourceError, "no column 'sector'"),
        ({"ticker": ["S000", "S000"], "sector": ["a", "b"]}, {}, DataError, r"\(S000\) has more than one industry"),
        ({"ticker": ["X"], "sector": ["a"]}, {}, DataError, "no stock of the market has an industry"),
        ({"ticker": [None, "S000"], "sector": ["a", "b"]}, {}, DataError, "rows have no ticker"),
        ({"ticker": ["S000"], "sector": ["a"], "day": ["soon"]}, {"date": "day"}, DataError, "not a date"),
        (
            {"ticker": ["S000"] * 2, "sector": ["a", "b"], "day": ["2015-02-02"] * 2},
            {"date": "day"},
            DataError,
            r"\(S000, 2015-02-02\) has more than one",
        ),
    ],
)
def test_a_bad_classification_is_refused(rows, fields, error, message, market: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, market, rows, **fields)


def test_a_panel_sees_the_industries_known_before_its_date(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "out")
    space = Workspace.of(settings)
    make_market(end="2016-06-30").write_parquet(tmp_path / "prices.parquet")
    rows = pl.DataFrame(
        {
            "day": ["2015-01-02"] * 23 + ["2016-03-01", "2016-06-01"],
            "ticker": [f"S{n:03d}" for n in range(23)] + ["S023", "S000"],
            "sector": ["bank", "tech"] * 11 + ["bank", "tech", "<b>oil"],
        }
    )
    changes = {
        "industries": {
            "origin": {"kind": "files", "paths": ["sectors.csv"]},
            "industry": "sector",
            "date": "day",
        },
        "walk_forward": {"first": "2016-03-31", "every": "quarter"},
    }
    rows.head(24).write_csv(tmp_path / "sectors.csv")
    spec = load_spec(write_config(tmp_path, changes))
    first = ingested(spec, settings)
    assert ingested(spec, settings) == first.model_copy(update={"changed": False})
    before = build_panel(spec, first, None, settings)
    seen = Sample(space, before, spec).known()
    assert seen.industries == ["bank", "tech"]
    assert (seen.industry.sel(ticker="S000")[-20:] == 0).all()
    late = seen.industry.sel(ticker="S023")
    assert set(late.sel(date=slice(None, "2016-03-01")).values) == {-1}, "it is known from the close of that date on"
    assert set(late.sel(date=slice("2016-03-02", None)).values) == {1}

    rows.write_csv(tmp_path / "sectors.csv")
    second = ingested(spec, settings)
    assert second.changed
    stored = Cube.open(space.layout, spec.universe).open_dataset()
    assert stored["industry_name"].values.tolist() == ["bank", "tech", "<b>oil"]
    after = build_panel(spec, second, None, settings)
    assert Sample(space, after, spec).known().industries == ["bank", "tech", "<b>oil"]
    for ref in (before, after):
        assert Sample(space, ref, spec).past(date(2016, 5, 31)).industries == ["bank", "tech"]
    xr.testing.assert_identical(
        Sample(space, before, spec).past(date(2016, 5, 31)).data,
        Sample(space, after, spec).past(date(2016, 5, 31)).data,
    )
    early = [plan_versions(spec, spec.models, ref, date(2016, 5, 31), settings) for ref in (first, second)]
    assert early[0] == early[1], "a change of June leaves the versions as of May as they are"
    now = [plan_versions(spec, spec.models, ref, None, settings) for ref in (first, second)]
    assert now[0]["pca"].version != now[1]["pca"].version


@pytest.mark.shared_data
def test_the_505_stocks_have_one_of_eleven_sectors_or_none(shared_data: Path) -> None:
    bars = LongPrices(origin=FilesOrigin(paths=(shared_data / "sp500_5yr_daily.parquet",)))
    market = read_market(bars, settings=HERE, frequency="daily", calendar="XNYS")
    sectors = FilesOrigin(paths=(shared_data / "sp500_5yr_sectors.parquet",))
    source = IndustrySource(origin=sectors, industry="sector_nyse_kaggle")
    found = read_industries(source, settings=HERE, frequency="daily", market=market)
    assert len(found["industry_name"]) == 11
    names = found["industry_name"].values[found["industry"].isel(date=-1).values]
    assert dict(zip(market["ticker"].values, names, strict=True))["AAPL"] == "Information Technology"
    named = pl.read_parquet(shared_data / "sp500_5yr_sectors.parquet").drop_nulls("sector_nyse_kaggle")["ticker"]
    listed = np.isfinite(market["close"]).cumsum("date") > 0
    np.testing.assert_array_equal(found["industry"] >= 0, listed & np.isin(market["ticker"], named.to_list()))
