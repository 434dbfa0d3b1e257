"""The risk of any book of holdings by the rows of a published version: what one question about a book asks for.

Here belongs putting together, for one set of weights as of a date, what the other modules of risk say of it: its
volatility and losses, its parts by factor, ticker and group, and what is active beside a benchmark. The formulas are
theirs; how a file of holdings is read belongs in `storage.sources`.

>>> version = RiskModel.open("published/us_demo/ipca/latest")
>>> found = version.risk({"AAPL": 0.6, "XOM": 0.4}, benchmark="equal_weight")
>>> found.summary()                           # volatility, losses, shares, beta, tracking error
>>> found.by_factor, found.by_ticker          # contributions, which add up to found.volatility
>>> found.active.by_ticker                    # those of the tracking error
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.portfolios.weights import rescaled
from models.risk.benchmark import active_weights, beta
from models.risk.contributions import volatility_by_factor, volatility_by_group, volatility_by_ticker
from models.risk.portfolio import RiskModel
from models.risk.tails import gaussian_es, gaussian_var
from schemas.base import first_of
from schemas.errors import DataError, ModelError, PublishError

Weights = Mapping[str, float] | pd.Series | npt.ArrayLike

LEVELS = (0.95, 0.99)
"""Probabilities at which losses are given."""
UNGROUPED = "unknown"
"""The group of tickers that have none."""
_ARRAYS = ("loadings", "omega", "specific_variance", "weights")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class BookRisk:
    """The risk of one book as of a date. Volatilities and losses are per period, in decimals of the book.

    Attributes
    ----------
    version : str
        The model by which it is, such as ``us_demo/ipca``.
    date : pandas.Timestamp
        As of the close of which date.
    periods_per_year : int
        252 or 12.
    weights : pandas.Series
        The book as given, by ticker.
    uncovered : pandas.Series
        Those of the weights whose ticker the version does not know, or does not cover on the date. The covered ones of
        the same side, long or short, are scaled up to stand for them, as in the portfolios of a version.
    volatility : float
    specific : float
        The part of the volatility that is specific; the rest is by factors.
    by_factor : pandas.DataFrame
        By factor: ``exposure``, ``marginal``, ``contribution`` to the volatility, and ``share`` of it, which is that
        of the variance too. Contributions and ``specific`` sum to the volatility.
    by_ticker : pandas.DataFrame
        By covered ticker held: ``weight`` as scaled, ``volatility`` of the stock, ``marginal``, ``contribution``,
        ``share``, and ``diversification``: by how much the contribution is below the ticker's part of the gross weight
        times the volatility. Contributions sum to the volatility, diversification to zero.
    by_group : pandas.DataFrame or None
        By group, if groups were given: ``weight``, ``contribution`` and ``share``.
    benchmark : str or None
        Name of the benchmark.
    beta : float or None
        Predicted beta to it.
    active : BookRisk or None
        The same of the weights less those of the benchmark: its volatility is the tracking error.
    """

    version: str
    date: pd.Timestamp
    periods_per_year: int
    weights: pd.Series
    uncovered: pd.Series
    volatility: float
    specific: float
    by_factor: pd.DataFrame
    by_ticker: pd.DataFrame
    by_group: pd.DataFrame | None = None
    benchmark: str | None = None
    beta: float | None = None
    active: BookRisk | None = None

    @property
    def annual_volatility(self) -> float:
        """Volatility times the root of the periods of a year."""
        return self.volatility * math.sqrt(self.periods_per_year)

    @property
    def specific_share(self) -> float:
        """Share of the variance that is specific; NaN without any."""
        return self.specific / self.volatility if self.volatility else math.nan

    @property
    def tracking_error(self) -> float | None:
        """Volatility of the active weights; None without a benchmark."""
        return None if self.active is None else self.active.volatility

    @property
    def uncovered_share(self) -> float:
        """Share of the gross weight that is not covered."""
        return float(self.uncovered.abs().sum() / self.weights.abs().sum())

    def value_at_risk(self, level: float = 0.99, periods: float = 1.0) -> float:
        """Gaussian value at risk; see `models.risk.tails.gaussian_var`."""
        return float(gaussian_var(xr.DataArray(self.volatility), level, periods))

    def expected_shortfall(self, level: float = 0.99, periods: float = 1.0) -> float:
        """Gaussian expected shortfall; see `models.risk.tails.gaussian_es`."""
        return float(gaussian_es(xr.DataArray(self.volatility), level, periods))

    def diversifiers(self, n: int = 5) -> pd.DataFrame:
        """Return the rows of `by_ticker` that bring the least risk for their size, the largest such effect first."""
        largest = self.by_ticker.sort_values("diversification", ascending=False, kind="stable").head(n)
        return largest[largest["diversification"] > 0.0]

    def table(self) -> pd.DataFrame:
        """Return everything as one long table: ``part``, ``name``, ``measure`` and ``value``."""
        parts = {"book": self.summary().T.rename(index={"value": self.version}), "factor": self.by_factor}
        parts |= {"ticker": self.by_ticker, "uncovered": self.uncovered.to_frame("weight")}
        parts |= {} if self.by_group is None else {"group": self.by_group}
        if self.active is not None:
            parts |= {"active_factor": self.active.by_factor, "active_ticker": self.active.by_ticker}
            parts |= {} if self.active.by_group is None else {"active_group": self.active.by_group}
        long = [
            frame.rename_axis(index="name").reset_index().melt("name", var_name="measure").assign(part=part)
            for part, frame in parts.items()
        ]
        return pd.concat(long, ignore_index=True)[["part", "name", "measure", "value"]]

    def summary(self) -> pd.DataFrame:
        """Return the numbers of the book as a whole, one row each: ``value`` by ``measure``."""
        values = {"volatility_annual": self.annual_volatility, "volatility": self.volatility}
        for level in LEVELS:
            values[f"value_at_risk_{level:.0%}".rstrip("%")] = self.value_at_risk(level)
            values[f"expected_shortfall_{level:.0%}".rstrip("%")] = self.expected_shortfall(level)
        values["factor_share"] = 1.0 - self.specific_share
        values["specific_share"] = self.specific_share
        values["net_weight"] = float(self.weights.sum())
        values["gross_weight"] = float(self.weights.abs().sum())
        values["uncovered_share"] = self.uncovered_share
        if self.active is not None:
            values["beta"] = math.nan if self.beta is None else self.beta
            values["tracking_error_annual"] = self.active.annual_volatility
            values["tracking_error"] = self.active.volatility
            values["active_specific_share"] = self.active.specific_share
        return pd.DataFrame({"value": pd.Series(values, dtype=np.float64).rename_axis("measure")})


@dataclass(frozen=True, eq=False)
class VersionRisk:
    """A published version, opened for the risk of books; rows are read when they are asked for.

    Attributes
    ----------
    rows : xarray.Dataset
        As published, lazy or in memory: ``loadings``, ``omega``, ``specific_variance`` and ``weights``.
    groups : pandas.Series or None
        Group of each ticker, such as its industry; tickers without one are in a group of their own.
    """

    rows: xr.Dataset
    groups: pd.Series | None = None

    def __post_init__(self) -> None:
        missing = [name for name in _ARRAYS if name not in self.rows]
        if missing or "periods_per_year" not in self.rows.attrs:
            lacks = ", ".join(missing) or "the attribute periods_per_year"
            raise PublishError(f"the dataset lacks {lacks}: it is not a published version")

    @property
    def name(self) -> str:
        """Universe and model."""
        return f"{self.rows.attrs.get('universe', '')}/{self.rows.attrs.get('model', '')}"

    @property
    def tickers(self) -> list[str]:
        """In the order in which an array of weights has them."""
        return [str(ticker) for ticker in self.rows["ticker"].values]

    @property
    def benchmarks(self) -> list[str]:
        """Names of the portfolios of the version."""
        return [str(name) for name in self.rows["portfolio"].values]

    def as_of(self, date: Any = None) -> pd.Timestamp:
        """Return the last date of the version, or the last one at or before a date.

        Raises
        ------
        ModelError
            If the version begins later.
        """
        dates = pd.DatetimeIndex(self.rows.indexes["date"])
        last = len(dates) if date is None else int(dates.searchsorted(pd.Timestamp(date), side="right"))
        if not last:
            raise ModelError(f"{self.name} begins on {dates[0]:%Y-%m-%d}; ask for that date or a later one.")
        return pd.Timestamp(dates[last - 1])

    def model(self, date: Any = None) -> RiskModel:
        """Return the risk model as of the last date, or the last one at or before a date.

        Raises
        ------
        ModelError
            If the version has no forecast as of that date.
        """
        day = self.as_of(date)
        rows = self.rows[["loadings", "omega", "specific_variance"]].sel(date=day, drop=True).load()
        if not np.isfinite(rows["omega"]).all():
            raise ModelError(f"{self.name} has no forecast as of {day:%Y-%m-%d}; its first fit is later.")
        return RiskModel(rows["loadings"], rows["omega"], rows["specific_variance"])

    def risk(self, weights: Weights, benchmark: str | Weights | None = None, date: Any = None) -> BookRisk:
        """Return the risk of a book, and what is active beside a benchmark.

        Parameters
        ----------
        weights : mapping, pandas.Series or array
            By ticker, or of every ticker in the order of `tickers`. What they lack to 1 is cash.
        benchmark : str, mapping, pandas.Series or array, optional
            The name of a portfolio of the version, or weights.
        date : date or str, optional
            As of the last date at or before it; the version's last date if left out.

        Raises
        ------
        DataError
            If weights are not finite, a ticker is given twice, an array has another length, or nothing is held.
        ModelError
            If the version has no forecast as of the date, covers nothing that is held long, or nothing that is held
            short, or does not have the benchmark.
        """
        day = self.as_of(date)
        model, given = self.model(day), self._series(weights, "the book")
        covered, scaled = _covered(model, given, f"the book on {day:%Y-%m-%d}")
        found = self._risk(model, day, given, scaled)
        found = replace(found, uncovered=given[~covered])
        if benchmark is None:
            return found
        name = benchmark if isinstance(benchmark, str) else "given"
        other = self._portfolio(benchmark, day) if isinstance(benchmark, str) else self._series(benchmark, "benchmark")
        _, against = _covered(model, other, f"benchmark '{name}' on {day:%Y-%m-%d}")
        active = active_weights(model, scaled, against)
        return replace(
            found,
            benchmark=name,
            beta=float(beta(model, scaled, against)),
            active=self._risk(model, day, active.to_series().rename("weight"), active),
        )

    def _risk(self, model: RiskModel, day: pd.Timestamp, given: pd.Series, weights: xr.DataArray) -> BookRisk:
        factors, tickers = volatility_by_factor(model, weights), volatility_by_ticker(model, weights)
        volatility = float(model.volatility(weights))
        return BookRisk(
            version=self.name,
            date=day,
            periods_per_year=int(self.rows.attrs["periods_per_year"]),
            weights=given,
            uncovered=given.iloc[:0],
            volatility=volatility,
            specific=float(model.specific(weights)) / volatility if volatility else 0.0,
            by_factor=_with_shares(factors[["exposure", "marginal", "contribution"]].to_dataframe(), volatility),
            by_ticker=_by_ticker(model, tickers, volatility),
            by_group=None if self.groups is None else _by_group(model, weights, self.groups, volatility),
        )

    def _portfolio(self, name: str, day: pd.Timestamp) -> pd.Series:
        if name not in self.benchmarks:
            raise ModelError(f"{self.name} has no portfolio '{name}'; it has {', '.join(self.benchmarks)}.")
        weights = self.rows["weights"].sel(portfolio=name, date=day).to_series().astype(np.float64)
        if not np.isfinite(weights).all():
            raise ModelError(f"portfolio '{name}' is not defined on {day:%Y-%m-%d}; choose another benchmark or date.")
        return weights[weights != 0.0]

    def _series(self, weights: Weights, what: str) -> pd.Series:
        if isinstance(weights, Mapping | pd.Series):
            series = pd.Series(weights, dtype=np.float64)
        else:
            values = np.asarray(weights, dtype=np.float64)
            if values.shape != (len(self.tickers),):
                raise DataError(
                    f"{what} is an array of shape {values.shape}; {self.name} has {len(self.tickers)} tickers."
                )
            series = pd.Series(values, index=self.tickers)
        series.index = pd.Index(series.index.map(str), name="ticker")
        if not series.index.is_unique:
            raise DataError(f"{what} has {series.index[series.index.duplicated()][0]} twice; add its weights up.")
        bad = series[~np.isfinite(series)]
        if len(bad):
            raise DataError(
                f"{what} has {bad.iloc[0]} for {bad.index[0]}; give finite weights, and leave out what is not held."
            )
        held = series[series != 0.0].rename("weight")
        if held.empty:
            raise DataError(f"{what} holds nothing; give at least one weight that is not zero.")
        return held


def open_rows(address: str | Path) -> xr.Dataset:
    """Open the Zarr group of a published version lazily, by its path or URL.

    A link `latest` is followed once: what it names later does not show in the dataset.

    Raises
    ------
    PublishError
        If there is none at this address.
    """
    where = str(address).rstrip("/")
    if "://" not in where:
        where = str(Path(where).expanduser().resolve())
    elif where.endswith("/latest"):
        raise PublishError(f"{where} is no folder of an object store; open the version that {where}.json names last")
    try:
        rows: xr.Dataset = xr.open_zarr(where, chunks=None)
    except (OSError, ValueError) as error:
        raise PublishError(f"{address}: no published version can be opened there: {error}") from None
    return rows


def _covered(model: RiskModel, given: pd.Series, what: str) -> tuple[pd.Series, xr.DataArray]:
    """Return which tickers are covered, and the weights of these (ticker), scaled up to stand for all of their side."""
    inside = model.covered.to_series()
    covered = inside.reindex(given.index, fill_value=False).astype(bool)
    scaled = rescaled(given.to_xarray(), covered.to_xarray()).sel(ticker=given.index[covered])
    if not covered.any() or not np.isfinite(scaled).all():
        held, known = (first_of([*map(str, names)], _SHOWN) for names in (given.index, inside.index[inside]))
        raise ModelError(
            f"of {what} the version covers nothing that is held {_side(given)}, such as {held}; are these the tickers "
            f"of the version, such as {known}?"
        )
    return covered, scaled


def _side(given: pd.Series) -> str:
    return "long" if (given > 0.0).all() else "short" if (given < 0.0).all() else "long, or nothing that is held short"


def _by_ticker(model: RiskModel, parts: xr.Dataset, volatility: float) -> pd.DataFrame:
    frame = parts[["weight", "marginal", "contribution"]].to_dataframe()
    frame = frame[frame["weight"] != 0.0]
    loadings = model.loadings.sel(ticker=frame.index).transpose("ticker", "factor").values.astype(np.float64)
    omega = model.omega.transpose("factor", "factor_").values.astype(np.float64)
    specific = model.specific_variance.sel(ticker=frame.index).values.astype(np.float64)
    frame.insert(1, "volatility", np.sqrt(((loadings @ omega) * loadings).sum(axis=1) + specific))
    gross = frame["weight"].abs()
    frame = _with_shares(frame, volatility)
    return frame.assign(diversification=gross / gross.sum() * volatility - frame["contribution"])


def _by_group(model: RiskModel, weights: xr.DataArray, groups: pd.Series, volatility: float) -> pd.DataFrame:
    named = groups.reindex(model.loadings.indexes["ticker"]).replace("", None).fillna(UNGROUPED)
    parts = volatility_by_group(model, weights, named)
    frame = _with_shares(parts[["weight", "contribution"]].to_dataframe(), volatility)
    return frame[(frame["weight"] != 0.0) | (frame["contribution"] != 0.0)]


def _with_shares(frame: pd.DataFrame, volatility: float) -> pd.DataFrame:
    columns = ["weight", "exposure", "volatility", "marginal", "contribution"]
    kept = frame[[name for name in columns if name in frame]]
    return kept.assign(share=kept["contribution"] / volatility if volatility else np.nan)
