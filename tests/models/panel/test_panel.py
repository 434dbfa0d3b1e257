"""The panel: lag, coverage, mask, transforms, and the reading of a cube span by span."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats
from xarray.backends import BackendArray
from xarray.core import indexing

from models.panel import Panel
from models.panel.assembly import panel_blocks
from models.panel.transforms import TRANSFORMS
from schemas.errors import ConfigError, DataError, ModelError

N_DATES, N_TICKERS = 23, 7


def make_cube(seed: int = 0, n_dates: int = N_DATES, n_tickers: int = N_TICKERS, n_chars: int = 4) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    shape = (n_dates, n_tickers)
    values = rng.normal(size=(*shape, n_chars)).round(1)  # ties
    values[rng.random(values.shape) < 0.3] = np.nan
    returns = np.where(rng.random(shape) < 0.1, np.nan, rng.normal(0, 0.02, shape))
    weights = np.where(rng.random((2, *shape)) < 0.3, np.nan, rng.random((2, *shape)))
    return xr.Dataset(
        {
            "returns": (("date", "ticker"), returns.astype(np.float32)),
            "characteristics": (("date", "ticker", "char"), values.astype(np.float32)),
            "estimation": (("date", "ticker"), rng.random(shape) < 0.7),
            "risk_free": ("date", rng.random(n_dates).astype(np.float32) * 1e-3),
            "factors": (("date", "observed_factor"), rng.normal(size=(n_dates, 2)).astype(np.float32)),
            "weights": (("portfolio", "date", "ticker"), weights.astype(np.float32)),
        },
        coords={
            "date": pd.bdate_range("2014-11-24", periods=n_dates),
            "ticker": [f"T{i}" for i in range(n_tickers)],
            "char": [f"c{i}" for i in range(n_chars)],
            "observed_factor": ["mkt", "smb"],
            "portfolio": ["cap", "other"],
        },
        attrs={"universe": "toy"},
    )


def join(cube: xr.Dataset, **options) -> xr.Dataset:
    return xr.concat(list(panel_blocks(cube, **options)), dim="date", data_vars="minimal")


def make_frame(cube: xr.Dataset) -> pd.DataFrame:
    frame = cube["characteristics"].to_dataset("char").assign(ret=cube["returns"]).to_dataframe().reset_index()
    return frame.astype({"ticker": "str"})


class TestTransforms:
    sections = npst.arrays(
        np.float64,
        (2, 9, 2),
        elements=st.sampled_from([np.nan, np.inf, -np.inf, -1.5, 0.0, 0.25, 1.0, 2.0, 3.0]) | st.floats(-9, 9),
    )
    coverages = npst.arrays(np.bool_, (2, 9))

    @staticmethod
    def reference(name: str, column: np.ndarray) -> np.ndarray:
        """One date and characteristic, known values only, the obvious way."""
        n = len(column)
        if name == "rank":
            return 2 * (stats.rankdata(column) - 1) / (n - 1) - 1 if n > 1 else np.zeros(n)
        if name == "winsorise":
            column = np.clip(column, *np.quantile(column, [0.01, 0.99]))
        if name == "none":
            return column
        return np.zeros(n) if np.ptp(column) < 1e-12 else stats.zscore(column)

    @pytest.mark.parametrize("name", TRANSFORMS)
    @settings(max_examples=60, deadline=None)
    @given(values=sections, coverage=coverages)
    def test_agrees_with_scipy_one_cross_section_at_a_time(self, name, values, coverage):
        result = TRANSFORMS[name](values, coverage)
        assert result.dtype == np.float32
        assert np.isnan(result[~coverage]).all()
        for t, c in np.ndindex(2, 2):
            known = coverage[t] & np.isfinite(values[t, :, c])
            if known.any() and (name in {"rank", "none"} or np.ptp(values[t, known, c]) > 1e-3):
                expected = self.reference(name, values[t, known, c])
                np.testing.assert_allclose(result[t, known, c], expected, rtol=1e-5, atol=1e-6)
            assert (result[t, coverage[t] & ~known, c] == 0).all()

    @pytest.mark.parametrize("name", ["rank", "standardise", "winsorise"])
    def test_one_stock_or_equal_values_say_nothing(self, name):
        values = np.array([[[0.1], [np.nan], [np.nan]], [[0.1], [0.1], [0.1]]])
        assert (TRANSFORMS[name](values, np.ones((2, 3), bool)) == 0).all()


class TestFromLong:
    def test_is_the_obvious_pandas(self):
        frame = make_frame(make_cube()).dropna(subset="ret")
        frame = frame[~((frame["ticker"] == "T3") & (frame["date"] == "2014-12-03"))]  # a gap in its rows
        panel = Panel.from_long(
            frame.sample(frac=1, random_state=1), characteristics=["c1", "c0"], lag=1, constant=False
        )
        wide = frame.pivot(index="date", columns="ticker", values=["ret", "c0", "c1"])  # noqa: PD010
        known = wide[["c0", "c1"]].notna().T.groupby("ticker").any().T.shift(1, fill_value=False)
        for name in ("c0", "c1"):
            ranks = wide[name].rank(axis=1)
            expected = (2 * (ranks - 1)).div(ranks.notna().sum(axis=1) - 1, axis=0) - 1
            expected = expected.shift(1).fillna(0).where(known)
            got = panel.characteristics.sel(char=name).to_pandas()
            pd.testing.assert_frame_equal(got, expected, check_dtype=False, check_names=False, check_index_type=False)
        assert panel.chars == ["c1", "c0"]
        np.testing.assert_array_equal(panel.coverage, known)
        np.testing.assert_array_equal(panel.mask, known & wide["ret"].notna())
        np.testing.assert_array_equal(panel.returns, wide["ret"])

    def test_polars_is_pandas(self):
        frame = make_frame(make_cube())
        one = Panel.from_long(frame, characteristics=["c0", "c1"])
        other = Panel.from_long(pl.from_pandas(frame), characteristics=["c0", "c1"])
        xr.testing.assert_identical(one.data, other.data)

    def test_lag_zero_and_minimal_coverage(self):
        frame = make_frame(make_cube())
        chars = ["c0", "c1", "c2", "c3"]
        share = frame.set_index(["date", "ticker"])[chars].notna().mean(axis=1).unstack()  # noqa: PD010
        for minimum, expected in [(0.0, share > 0), (0.75, share >= 0.75), (1.0, share == 1.0)]:
            panel = Panel.from_long(frame, characteristics=chars, lag=0, min_coverage=minimum)
            np.testing.assert_array_equal(panel.coverage, expected)
        raw = Panel.from_long(frame, characteristics=chars, lag=0, transform="none")
        np.testing.assert_array_equal(raw.coverage, share == 1.0)  # raw values have no neutral fill
        assert np.isfinite(raw.characteristics.values[raw.coverage.values]).all()

    def test_is_the_path_of_the_cube(self):
        cube = make_cube().drop_vars("risk_free")
        chars = ["c0", "c1", "c2", "c3"]
        long = Panel.from_long(make_frame(cube), characteristics=chars)
        cube["estimation"][:] = True
        data = join(cube)
        for name in ("characteristics", "coverage", "mask", "market_weight"):
            np.testing.assert_array_equal(long.data[name], data[name])

    def test_factors_are_matched_by_date(self):
        frame = make_frame(make_cube())
        factors = pd.DataFrame({"mkt": [0.02, 0.01]}, index=pd.to_datetime(["1999-01-01", "2014-11-25"]))
        with pytest.warns(UserWarning, match="22 of 23 dates of the panel have no factors, the first is 2014-11-24"):
            got = Panel.from_long(frame, characteristics=["c0"], factors=factors).factors.to_pandas()["mkt"]
        assert got.dropna().to_dict() == {pd.Timestamp("2014-11-25"): 0.01}

    def test_factors_that_label_other_periods_are_refused_with_a_count(self):
        months = pd.date_range("2010-01-31", periods=120, freq="ME")
        frame = pd.DataFrame({"date": months, "ticker": "A", "ret": 0.01})

        def observed(index: pd.DatetimeIndex) -> Panel:
            return Panel.from_long(frame, factors=pd.DataFrame({"mkt": 0.02}, index=index), lag=0)

        assert observed(months).factors.notnull().all()
        business = pd.date_range("2010-01-29", periods=120, freq="BME")
        told = "35 of 120 dates have no factors, the first is 2010-01-31, and 34 dates .* the first is 2010-02-26"
        with pytest.raises(DataError, match=rf"`factors`: {told}; label periods alike, such as by `index \+ pandas"):
            observed(business)
        with pytest.raises(DataError, match="no date in common with the market: the factors are from 2010-01-01 to"):
            observed(months - pd.offsets.MonthBegin(1))
        with pytest.raises(DataError, match=r"3622 dates of factors lie among 120 .*another frequency"):
            observed(pd.date_range("2010-01-01", "2020-01-01"))

    def test_dates_as_text_are_read_in_one_form_and_never_guessed(self):
        frame = make_frame(make_cube())
        whole = Panel.from_long(frame, characteristics=["c0"])
        for form in ("%Y-%m-%d", "%Y%m%d", " %Y-%m-%d 00:00:00-05:00"):
            text = frame.assign(date=frame["date"].dt.strftime(form))
            xr.testing.assert_identical(Panel.from_long(text, characteristics=["c0"]).data, whole.data)
        for form in ("%d.%m.%y", "%m/%d/%Y", "%Y-%m-%d 16:00", "%Y%m1"):
            text = frame.assign(date=frame["date"].dt.strftime(form))
            with pytest.raises(DataError, match=r"cannot be read: .*is not a date; write existing dates as YYYY-MM-DD"):
                Panel.from_long(text, characteristics=["c0"])
        months = pd.DataFrame({"date": ["2014-11", "201412"], "ticker": "A", "ret": 0.01})
        assert list(Panel.from_long(months).dates) == [pd.Timestamp("2014-11-30"), pd.Timestamp("2014-12-31")]

    def test_a_loss_of_more_than_everything_is_refused_by_its_row(self):
        frame = make_frame(make_cube())
        frame.loc[8, "ret"] = -66.0
        key = f"({frame.loc[8, 'date']:%Y-%m-%d}, {frame.loc[8, 'ticker']})"
        with pytest.raises(DataError, match=rf"'ret' is -66 for {re.escape(key)}, .* in 1 of {len(frame)} rows"):
            Panel.from_long(frame, characteristics=["c0"])
        frame.loc[8, "ret"] = -1.01  # all is lost, less the risk-free rate
        Panel.from_long(frame, characteristics=["c0"])
        Panel.from_long(frame.assign(ret=frame["c0"] * 3.0), characteristics=["c0"])  # no returns at all

    def test_blanks_around_a_ticker_are_no_part_of_it(self):
        frame = make_frame(make_cube())
        padded = frame.assign(ticker=frame["ticker"].where(frame.index != 5, frame["ticker"] + " "))
        xr.testing.assert_identical(Panel.from_long(padded).data, Panel.from_long(frame).data)

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            (lambda f: pd.concat([f, f.iloc[[8]]]), {}, r"more than one row for \(2014-11-25, T1\)"),
            (lambda f: f.drop(columns="c1"), {}, "no column 'c1'"),
            (lambda f: f.drop(columns="date"), {}, "no column 'date'"),
            (lambda f: f.astype({"c1": "str"}), {}, "Column 'c1' holds str"),
            (lambda f: f.assign(date=20141231), {}, "numbers"),
            (lambda f: f.assign(date="yesterday"), {}, "cannot be read"),
            (lambda f: f.assign(date=f["date"].dt.tz_localize("UTC")), {}, "time zone"),
            (lambda f: f.assign(date=f["date"].where(f["date"] > "2014-12")), {}, "missing"),
            (
                lambda f: f.assign(ticker=f["ticker"].where(f["ticker"] > "T0")),
                {},
                "'ticker' must not have missing",
            ),
            (
                lambda f: f.rename(columns={"c0": "constant"}),
                {"characteristics": ["constant"]},
                "different names",
            ),
        ],
    )
    def test_refuses_what_it_cannot_mean(self, change, options, message):
        with pytest.raises(DataError, match=message):
            Panel.from_long(
                change(make_frame(make_cube())),
                **{"characteristics": ["c0", "c1"], **options},
            )

    @pytest.mark.parametrize("options", [{"lag": -1}, {"transform": "zscore"}])
    def test_refuses_unknown_options(self, options):
        with pytest.raises(ConfigError):
            Panel.from_long(make_frame(make_cube()), characteristics=["c0"], **options)


def wide_frames(cube: xr.Dataset) -> dict[str, pd.DataFrame]:
    chars = cube["characteristics"].to_dataset("char")
    return {name: array.to_pandas() for name, array in chars.assign(returns=cube["returns"]).items()}


class TestOtherShapes:
    """Frames of dates by tickers, indexed frames and datasets give the panel of the long frame."""

    def test_all_are_the_long_frame(self):
        cube = make_cube()
        cube["returns"][4], cube["characteristics"][4] = np.nan, np.nan  # a date of which nothing is known
        frame, factors = make_frame(cube), cube["factors"].to_pandas()
        filled = frame.dropna(subset=["ret", "c0", "c1"], how="all")
        frame = pd.concat([filled, frame[frame["date"] == cube["date"].values[4]].head(1)])
        frame["industry"] = "group " + (frame["date"].dt.day % 3).astype(str)
        options = {"lag": 2, "transform": "standardise", "constant": False, "min_coverage": 0.9}
        long = Panel.from_long(frame, characteristics=["c1", "c0"], factors=factors, industry="industry", **options)
        for index in (["date", "ticker"], ["ticker", "date"]):
            indexed = frame.set_index(index)
            again = Panel.from_long(
                indexed, characteristics=["c1", "c0"], factors=factors, industry="industry", **options
            )
            xr.testing.assert_identical(again.data, long.data)
        wide = wide_frames(cube)
        groups = frame.pivot(index="date", columns="ticker", values="industry")  # noqa: PD010
        turned = wide["returns"].iloc[::-1, ::-1]
        again = Panel.from_wide(
            turned, {"c1": wide["c1"], "c0": wide["c0"]}, factors=factors, industry=groups, **options
        )
        xr.testing.assert_identical(again.data, long.data)
        data = cube[["returns", "factors"]].assign(characteristics=cube["characteristics"].sel(char=["c1", "c0"]))
        data["industry"] = (("date", "ticker"), groups.reindex(index=cube["date"].values).to_numpy(dtype=object))
        xr.testing.assert_identical(Panel.from_xarray(data.transpose("ticker", ...), **options).data, long.data)

    def test_a_stock_is_covered_from_its_first_row_and_labels_stay(self):
        returns = wide_frames(make_cube())["returns"]
        returns.iloc[:5, 2] = returns.iloc[:, 3] = np.nan
        panel = Panel.from_wide(returns, lag=0)
        np.testing.assert_array_equal(panel.coverage, returns.notna())
        assert panel.tickers == [*returns.columns]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda w: (w["returns"].to_numpy(),),
                "'returns' must be a pandas DataFrame of dates by tickers, not a numpy",
            ),
            (lambda w: (w["returns"], [w["c0"]]), "must map names to frames"),
            (lambda w: (w["returns"], {"returns": w["c0"]}), "No characteristic can be called 'returns'"),
            (lambda w: (w["returns"], {"c0": w["c0"].shift(freq="1D")}), "'c0' has the date 2014-11-29, one of 5 that"),
            (lambda w: (w["returns"], {"c0": w["c0"].add_prefix("X")}), "'c0' has the ticker XT0, one of 7 that"),
            (lambda w: (pd.concat([w["returns"]] * 2),), "'returns' has the date 2014-11-24 twice"),
            (lambda w: (w["returns"], {"c0": w["c0"].astype(str)}), "'c0' holds str, not numbers"),
            (
                lambda w: (w["returns"] - 60.0 * (w["returns"] == w["returns"].iloc[3, 2]),),
                r"is -59.* for \(2014-11-27, T2",
            ),
        ],
    )
    def test_wide_frames_that_do_not_fit_are_refused(self, change, message):
        with pytest.raises(DataError, match=message):
            Panel.from_wide(*change(wide_frames(make_cube())))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d, "'estimation', which is none of .*Panel.from_cube if the dataset is a cube"),
            (lambda d: d["returns"], "not a xarray DataArray"),
            (lambda d: d[["factors"]], "no variable 'returns'; it has factors"),
            (lambda d: d[["returns"]].isel(ticker=0), r"'returns' has dimensions \('date',\); it needs"),
            (lambda d: d[["returns"]].drop_vars("ticker"), "no labels along 'ticker'"),
            (lambda d: xr.concat([d[["returns"]]] * 2, "date"), r"more than one row for \(2014-11-24, T0\)"),
        ],
    )
    def test_datasets_that_do_not_fit_are_refused(self, change, message):
        with pytest.raises(DataError, match=message):
            Panel.from_xarray(change(make_cube()))

    @pytest.mark.parametrize("other", [np.ones((3, 2)), make_cube(), [1.0]])
    def test_what_is_no_frame_is_refused(self, other):
        with pytest.raises(DataError, match=r"from a pandas or polars frame .*; Panel\.from_wide takes"):
            Panel.from_long(other)


class TestBlocks:
    options = st.fixed_dictionaries(
        {
            "transform": st.sampled_from(sorted(TRANSFORMS)),
            "lag": st.integers(1, 3),
            "constant": st.booleans(),
            "market_portfolio": st.sampled_from([None, "cap"]),
            "characteristics": st.sampled_from([None, ["c2", "c0"], []]),
            "next_date": st.sampled_from([None, pd.Timestamp("2015-01-02")]),
        }
    )

    @settings(max_examples=20, deadline=None)
    @given(options=options, block=st.integers(1, N_DATES + 3))
    def test_block_size_changes_no_bit(self, options, block):
        whole = join(make_cube(), **options, block=1000)
        parts = join(make_cube(), **options, block=block)
        xr.testing.assert_identical(whole, parts)
        for name in whole:
            assert whole[name].values.tobytes() == parts[name].values.tobytes()

    @settings(max_examples=20, deadline=None)
    @given(options=options, row=st.integers(0, N_DATES - 1), seed=st.integers(1, 99))
    def test_the_future_changes_nothing(self, options, row, seed):
        cube, other = make_cube(), make_cube(seed)
        future = cube["date"] >= cube["date"][row]
        changed = xr.where(future, other, cube, keep_attrs=True).transpose(*cube.dims)
        changed["estimation"] = changed["estimation"].astype(bool)
        one, two = join(cube, **options, block=5), join(changed, **options, block=5)
        known = ["characteristics", "coverage", "market_weight"]
        xr.testing.assert_identical(one[known].isel(date=slice(row + 1)), two[known].isel(date=slice(row + 1)))
        xr.testing.assert_identical(one.isel(date=slice(row)), two.isel(date=slice(row)))

    @settings(max_examples=20, deadline=None)
    @given(order=st.permutations(range(N_TICKERS)), transform=st.sampled_from(sorted(TRANSFORMS)))
    def test_order_of_tickers_does_not_matter(self, order, transform):
        cube = make_cube()
        permuted = join(cube.isel(ticker=order), transform=transform, market_portfolio="cap")
        expected = join(cube, transform=transform, market_portfolio="cap").isel(ticker=order)
        xr.testing.assert_allclose(permuted, expected, rtol=1e-5, atol=1e-6)
        if transform == "rank":
            xr.testing.assert_identical(permuted["characteristics"], expected["characteristics"])

    def test_every_variable_by_its_definition(self):
        cube = make_cube()
        cube["risk_free"][9] = np.nan
        data = join(cube, lag=2, market_portfolio="cap", next_date=pd.Timestamp("2015-01-02"))
        Panel(data)
        assert data.sizes["date"] == N_DATES + 1
        assert data.attrs == {"universe": "toy", "transform": "rank", "lag": 2, "risk_free_subtracted": 1}
        enough = np.isfinite(cube["characteristics"].values).mean(axis=2) >= 0.5
        covered = np.concatenate([np.zeros((2, N_TICKERS), bool), enough[:-1]])
        np.testing.assert_array_equal(data["coverage"], covered)
        excess = (cube["returns"] - cube["risk_free"]).values
        np.testing.assert_allclose(data["returns"][:-1], excess, rtol=1e-5, atol=1e-7)
        assert np.isnan(data["returns"][[9, -1]]).all()
        eligible = np.concatenate([np.zeros((2, N_TICKERS), bool), cube["estimation"].values[:-1]])
        usable = np.isfinite(excess) & cube["estimation"].values
        usable = np.concatenate([usable, np.zeros((1, N_TICKERS), bool)])
        np.testing.assert_array_equal(data["mask"], covered & eligible & usable)
        np.testing.assert_array_equal(data["trusted"], usable)
        weights = cube["weights"].sel(portfolio="cap").values[:-1]
        for t in range(2, N_DATES + 1):
            held = np.where(covered[t], np.nan_to_num(weights[t - 2]), 0)
            np.testing.assert_allclose(data["market_weight"][t], held / held.sum(), rtol=1e-5)
        assert np.isnan(data["market_weight"][:2]).all()
        np.testing.assert_array_equal(data["factors"][:-1], cube["factors"])
        constant = data["characteristics"].sel(char="constant").values
        np.testing.assert_array_equal(constant, np.where(covered, 1.0, np.nan))

    def test_without_characteristics_coverage_is_the_estimation_flag(self):
        for cube in (make_cube().drop_dims("char"), make_cube().isel(char=[])):
            data = join(cube, constant=True)
            assert data["char"].values.tolist() == ["constant"]
            np.testing.assert_array_equal(data["coverage"][1:], cube["estimation"][:-1])
            weight = data["market_weight"].where(data["coverage"]).values
            np.testing.assert_allclose(np.nansum(weight, axis=1)[1:], 1.0, rtol=1e-6)
            assert join(cube, constant=False).sizes["char"] == 0

    def test_without_risk_free_returns_are_raw_and_it_says_so(self):
        cube = make_cube().drop_vars("risk_free")
        data = join(cube)
        np.testing.assert_array_equal(data["returns"], cube["returns"])
        assert data.attrs["risk_free_subtracted"] == 0

    def test_reads_no_more_than_a_span(self):
        cube = make_cube(n_dates=60)
        reads: list[int] = []

        class Recorder(BackendArray):
            def __init__(self, values: np.ndarray) -> None:
                self.values, self.shape, self.dtype = values, values.shape, values.dtype

            def __getitem__(self, key):
                return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.read)

            def read(self, key):
                part = self.values[np.ix_(*(np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)))]
                reads.append(part.shape[0])
                return part

        array = indexing.LazilyIndexedArray(Recorder(cube["characteristics"].values))
        lazy = cube.assign(characteristics=(("date", "ticker", "char"), array))
        wanted = ["c3", "c1"]
        xr.testing.assert_identical(join(lazy, block=8, characteristics=wanted), join(cube, characteristics=wanted))
        assert max(reads) == 8
        assert sum(reads) == 59

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            (lambda c: c.drop_vars("estimation"), {}, "no variable 'estimation'"),
            (lambda c: c, {"characteristics": ["c0", "size"]}, "no characteristic 'size'"),
            (lambda c: c, {"market_portfolio": "sp500"}, "no portfolio 'sp500'"),
            (lambda c: c, {"next_date": pd.Timestamp("2014-12-01")}, "strictly increase"),
            (lambda c: c.isel(date=[1, 0, 2]), {}, "strictly increase"),
        ],
    )
    def test_refuses_what_the_cube_lacks(self, change, options, message):
        with pytest.raises(DataError, match=message):
            next(iter(panel_blocks(change(make_cube()), **options)))

    def test_next_date_needs_a_lag(self):
        with pytest.raises(ConfigError, match="lag of at least 1"):
            next(iter(panel_blocks(make_cube(), lag=0, next_date=pd.Timestamp("2015-06-01"))))


class TestPanel:
    def panel(self) -> Panel:
        return Panel(join(make_cube()))

    def test_sel_takes_whole_months_and_both_ends(self):
        panel = self.panel()
        before, after = panel.sel(end="2014-11"), panel.sel(start="2014-12")
        assert before.dates[-1] == pd.Timestamp("2014-11-28")
        assert after.dates[0] == pd.Timestamp("2014-12-01")
        assert len(before.dates) + len(after.dates) == N_DATES
        assert len(panel.sel("2014-12-01", "2014-12-05").dates) == 5
        with pytest.raises(DataError, match="no date from 2030"):
            panel.sel(start="2030")

    def test_split_is_a_partition_in_time(self):
        parts = self.panel().split("2014-12", "2014-12-15")
        joined = xr.concat([part.data for part in parts], "date", data_vars="minimal")
        xr.testing.assert_identical(joined, self.panel().data)
        assert [part.dates[0].day for part in parts] == [24, 1, 15]
        with pytest.raises(DataError, match="empty part"):
            self.panel().split("2014-12", "2016-01")

    def test_blocks_and_load_are_the_whole(self):
        parts = [part.data for part in self.panel().blocks(4)]
        assert [part.sizes["date"] for part in parts] == [4, 4, 4, 4, 4, 3]
        xr.testing.assert_identical(xr.concat(parts, "date", data_vars="minimal"), self.panel().load().data)

    def test_from_arrays_defaults(self):
        rng = np.random.default_rng(3)
        returns, characteristics = rng.normal(size=(5, 4)), rng.normal(size=(5, 4, 2))
        returns[0, 1] = characteristics[2, 3, 0] = np.nan
        panel = Panel.from_arrays(returns, characteristics, dates=pd.date_range("2020", periods=5, name="Date"))
        assert (int(panel.coverage.sum()), int(panel.mask.sum())) == (19, 18)
        assert np.isnan(panel.characteristics.sel(date=panel.dates[2])[3]).all()
        np.testing.assert_allclose(panel.market_weight.sum("ticker"), 1.0, rtol=1e-6)
        bare = Panel.from_arrays(returns, mask=np.eye(5, 4, dtype=bool))
        assert bare.chars == []
        assert bare.coverage.all()
        assert int(bare.mask.sum()) == 4
        with pytest.raises(ModelError, match="no observed factors"):
            _ = bare.factors

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"coverage": np.ones((5, 4), bool)}, "lacks a characteristic"),
            ({"mask": np.ones((4, 5), bool)}, "`mask` has shape"),
            ({"chars": ["one"]}, "2 chars need 2 names"),
            ({"chars": ["one", "one"]}, "different names"),
            ({"dates": pd.to_datetime(["2020-01-02"] * 5)}, "strictly increase"),
            ({"dates": np.arange(5)}, "numbers"),
        ],
    )
    def test_from_arrays_refuses(self, options, message):
        characteristics = np.zeros((5, 4, 2))
        characteristics[0, 0, 0] = np.nan
        with pytest.raises(DataError, match=message):
            Panel.from_arrays(np.zeros((5, 4)), characteristics, **options)

    def test_industry_is_lagged_like_a_characteristic(self):
        names = np.array([["tech", None, "bank"], ["tech", "auto", "bank"], ["oil", "auto", "bank"], [None] * 3])
        dates = pd.bdate_range("2020-01-01", periods=4)
        rows = {"date": np.repeat(dates, 3), "ticker": [*"abc"] * 4, "sector": names.ravel(), "x": 1.0, "ret": 0.0}
        frame = pd.DataFrame(rows)
        panel = Panel.from_long(frame, characteristics=["x"], industry="sector")
        assert panel.industries == ["bank", "tech", "auto", "oil"]  # first seen first, by name within a date
        assert panel.industry.dtype == np.int16
        assert panel.industry.values.tolist() == [[-1, -1, -1], [1, -1, 0], [1, 2, 0], [3, 2, 0]]
        earlier = Panel.from_long(frame[frame.date <= dates[1]], characteristics=["x"], industry="sector")
        assert earlier.industries == panel.industries[:3]
        np.testing.assert_array_equal(earlier.industry, panel.industry[:2])
        for kept in (panel.load(), panel.sel(end="2020-01-02"), Panel(panel.data.isel(date=[0])), *panel.blocks(3)):
            assert kept.industries == panel.industries

    def test_industry_of_a_cube_is_the_same_in_blocks_of_any_size(self):
        cube, codes = make_cube(), np.random.default_rng(1).integers(-1, 3, (N_DATES, N_TICKERS)).astype(np.int16)
        cube["industry"] = (("date", "ticker"), codes)
        cube = cube.assign_coords(industry_name=["a", "b", "c"])
        whole = Panel(join(cube, lag=2))
        known = np.pad(codes, ((2, 0), (0, 0)), constant_values=-1)[:N_DATES]
        np.testing.assert_array_equal(whole.industry, np.where(whole.coverage, known, -1))
        xr.testing.assert_identical(join(cube, lag=2, block=5), whole.data)

    def test_industries_of_arrays(self):
        codes = np.array([[0, 1, -1], [2, 1, 0]])
        panel = Panel.from_arrays(np.zeros((2, 3)), industry=codes, industries=["a", "b", "c", "unused"])
        assert panel.industries == ["a", "b", "c", "unused"]
        np.testing.assert_array_equal(panel.industry, codes)
        assert Panel.from_arrays(np.zeros((2, 3)), industry=codes).industries == ["industry0", "industry1", "industry2"]
        without = Panel.from_arrays(np.zeros((2, 3)))
        assert without.industries == []
        with pytest.raises(ModelError, match="no industries"):
            _ = without.industry
        for names in (["a", "b"], ["a", "b", "b"]):
            with pytest.raises(DataError, match="Industry codes must be positions"):
                Panel.from_arrays(np.zeros((2, 3)), industry=codes, industries=names)

    def test_needs_its_variables(self):
        with pytest.raises(DataError, match="'mask'"):
            Panel(self.panel().data.drop_vars("mask"))


def test_a_view_of_a_panel_on_disk_is_read_when_it_is_laid_out(tmp_path: Path) -> None:
    """And has the bits, in the layout, of a view of the same panel in memory; characteristics stay on disk."""
    loaded = Panel(join(make_cube()))
    loaded.data.to_zarr(tmp_path / "panel", zarr_format=3, consolidated=False)
    stored = Panel(xr.open_zarr(tmp_path / "panel", chunks=None, consolidated=False))
    tickers = np.array([3, 0, 2])
    view, expected = stored.view(4, tickers), loaded.view(4, tickers)
    assert not view.data["returns"].variable._in_memory
    laid = view.laid()
    assert laid.data["returns"].variable._in_memory
    assert not laid.characteristics.variable._in_memory
    for name, array in expected.data.data_vars.items():
        np.testing.assert_array_equal(laid.data[name].values, array.values, err_msg=str(name))
        if name != "characteristics":
            assert laid.data[name].values.flags["C_CONTIGUOUS"]
