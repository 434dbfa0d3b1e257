"""Forecasts held against the window of returns that follows each, and what all windows say together.

Here belongs how windows are gathered and put into one dataset. Dates and stocks come from `asking`, portfolios from
`portfolios`, numbers of a family from `scoring`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, Float64Array, IntArray
from models.evaluation import portfolios
from models.evaluation.asking import Forecast, Rebalancing, Rules
from models.evaluation.covariances import Covariance, FactorForm
from models.evaluation.differences import covariance_distance
from models.evaluation.likelihood import CrossSections, gaussian
from models.evaluation.meanings import MEANING
from models.evaluation.resampling import stationary_bootstrap
from models.evaluation.scoring import Family, score
from models.evaluation.structure import (
    dispersion,
    expected_dispersion,
    explanatory_power,
    factor_stability,
    subspace_overlap,
    variance_inflation,
)
from schemas.errors import DataError


@dataclass(eq=False)
class Windows:
    """What is gathered window by window."""

    rules: Rules
    groups: Mapping[str, str]
    capitalisation: xr.DataArray | None
    realised: dict[str, dict[int, pd.DataFrame]] = field(default_factory=dict)
    variance: dict[str, dict[int, pd.Series]] = field(default_factory=dict)
    turnover: dict[str, list[float]] = field(default_factory=dict)
    before: dict[str, pd.DataFrame] = field(default_factory=dict)
    sections: list[CrossSections] = field(default_factory=list)
    covered: list[tuple[int, int, int, int]] = field(default_factory=list)
    structure: list[dict[str, float]] = field(default_factory=list)
    earlier: tuple[pd.Index, FactorForm] | None = None

    def add(self, one: Rebalancing, forecast: Forecast, returns: Float64Array) -> None:
        """Hold a forecast against the returns (date, ticker) of its window."""
        place = forecast.tickers.get_indexer(one.tickers)
        asked = place >= 0
        if asked.sum() < 2:
            raise DataError(
                f"The forecast as of {one.as_of:%Y-%m-%d} covers {int(asked.sum())} of the stocks asked for."
            )
        tickers, returns = one.tickers[asked], returns[:, asked]
        covariance = forecast.covariance.restricted(place[asked])
        known = np.isfinite(returns)
        filled = np.where(known, returns, 0.0)
        for family, weights in self._weights(one, asked, covariance).items():
            self._hold(
                one.number, family, weights, covariance.variance(weights.to_numpy()), filled @ weights.to_numpy().T
            )
        single = pd.DataFrame(returns, columns=tickers)
        self.realised.setdefault("stocks", {})[one.number] = single
        self.variance.setdefault("stocks", {})[one.number] = pd.Series(covariance.diagonal, index=tickers)
        self.sections.append(gaussian(covariance, returns))
        self.covered.append((int(asked.sum()), len(asked), int(known.sum()), known.size))
        self.structure.append(self._diagnose(tickers, covariance, returns))

    def _diagnose(self, tickers: pd.Index, covariance: Covariance, returns: Float64Array) -> dict[str, float]:
        """Say what the window tells of dispersion and loadings, and of loadings beside those before."""
        realised = float(np.nanmean(dispersion(returns)))
        found = {"dispersion": realised, "dispersion_bias": realised / expected_dispersion(covariance)}
        if not isinstance(covariance, FactorForm):
            return found
        found["explanatory_power"] = float(np.nanmean(explanatory_power(covariance, np.nan_to_num(returns))))
        inflation = variance_inflation(covariance.loadings)
        found["largest_variance_inflation"] = float(np.nanmax(inflation, initial=1.0))
        if self.earlier is not None:
            found |= _change(self.earlier, (tickers, covariance))
        self.earlier = (tickers, covariance)
        return found

    def _hold(
        self, number: int, family: str, weights: pd.DataFrame, variance: Float64Array, realised: Float64Array
    ) -> None:
        self.variance.setdefault(family, {})[number] = pd.Series(variance, index=weights.index)
        self.realised.setdefault(family, {})[number] = pd.DataFrame(realised, columns=weights.index)
        if family in _LASTING:
            earlier = self.before.get(family)
            if earlier is not None:
                mine, theirs = weights.align(earlier, fill_value=0.0)
                change = portfolios.turnover(theirs.to_numpy(), mine.to_numpy()) / len(mine)
                self.turnover.setdefault(family, []).append(change)
            self.before[family] = weights

    def _weights(self, one: Rebalancing, asked: BoolArray, covariance: Covariance) -> dict[str, pd.DataFrame]:
        """Return the portfolios of a date, (portfolio, ticker) by family."""
        rules, tickers, n = self.rules, one.tickers[asked], int(asked.sum())
        rng = np.random.default_rng([rules.seed, one.number])
        sizes = (rules.n_random, rules.n_alphas, rules.n_directions)
        random, alphas, directions = (rng.standard_normal((size, len(asked)))[:, asked] for size in sizes)
        cap = max(rules.cap, _LEAST_CHOICE / n)
        found = {
            "equal_weight": np.full((1, n), 1.0 / n),
            "random_long_short": portfolios.random_long_short(random),
            "random_alpha": portfolios.random_alpha(covariance, alphas),
            "minimum_variance": portfolios.minimum_variance(covariance)[None],
            "minimum_variance_long_only": portfolios.long_only_minimum_variance(covariance, cap)[None],
        }
        if isinstance(covariance, FactorForm):
            found["factors"] = portfolios.factor_portfolios(covariance)
        ranked = portfolios.eigenportfolios(covariance, directions)
        found |= {f"eigenportfolios {bucket}": weights for bucket, weights in ranked.items()}
        named = {family: pd.DataFrame(weights, columns=tickers) for family, weights in found.items()}
        if self.capitalisation is not None:
            value = self.capitalisation.sel(date=one.as_of).to_series().reindex(tickers).clip(lower=0.0).fillna(0.0)
            named["cap_weight"] = (value / value.sum()).to_frame().T.reset_index(drop=True)
        member = np.array([ticker in self.groups for ticker in tickers])
        if member.any():
            names, weights = portfolios.group_portfolios([self.groups[ticker] for ticker in tickers[member]])
            held = pd.DataFrame(weights, index=names, columns=tickers[member])
            named["sectors"] = held.reindex(columns=tickers, fill_value=0.0)
        return named

    def result(self, judged: pd.DatetimeIndex, as_of: pd.DatetimeIndex) -> xr.Dataset:
        """Assemble everything that was gathered."""
        rules = self.rules
        draws = stationary_bootstrap(len(as_of), rules.bootstrap_windows, rules.n_bootstrap, rules.seed)
        daily = {family: self._family(family) for family in self.realised}
        scores = {}
        for horizon in dict.fromkeys((1, rules.step)):
            for family, held in daily.items():
                scores[family, horizon] = score(
                    held if horizon == 1 else held.summed(),
                    block=rules.block // rules.step,
                    periods_per_year=rules.periods_per_year / horizon,
                    draws=draws,
                )
        index = pd.MultiIndex.from_tuples(scores, names=["family", "horizon"])
        result = pd.DataFrame(list(scores.values()), index=index).to_xarray().reindex(family=list(daily))
        turnover = [float(np.mean(self.turnover.get(family, [math.nan]))) for family in daily]
        asked = np.array(self.covered).sum(axis=0)
        result = result.assign(
            turnover=("family", turnover),
            qlike_by_date=(("family", "date"), np.stack([_by_date(held.losses()) for held in daily.values()])),
            squared_return=(("family", "date"), np.stack([_by_date(held.realised**2) for held in daily.values()])),
            coverage=asked[0] / asked[1],
            known_returns=asked[2] / asked[3],
            **self._likelihood(draws),
            **self._structure(),
        ).assign_coords(date=judged, as_of=as_of)
        for name, (units, meaning) in MEANING.items():
            if name in result:
                result[name].attrs = {"units": units, "long_name": meaning}
        return result

    def _likelihood(self, draws: IntArray) -> dict[str, Any]:
        """Pool the likelihood over stock-days, with its standard error."""
        density, distance, n_stocks = (
            np.concatenate([getattr(part, name) for part in self.sections]).astype(np.float64)
            for name in ("log_likelihood", "mahalanobis", "n_stocks")
        )
        by_window = np.stack([density, distance, n_stocks]).reshape(3, len(self.sections), -1)
        sums = np.nansum(by_window, axis=2)
        resampled = sums[:, draws].sum(axis=2)
        return {
            "log_likelihood_by_date": ("date", density / np.where(n_stocks > 0.0, n_stocks, np.nan)),
            "log_likelihood": sums[0].sum() / sums[2].sum(),
            "log_likelihood_stderr": float(np.std(resampled[0] / resampled[2], ddof=1)),
            "mahalanobis": sums[1].sum() / sums[2].sum(),
        }

    def _structure(self) -> dict[str, Any]:
        """Average the diagnostics over windows; of dispersions, which are variances, give the root."""
        means = pd.DataFrame(self.structure).mean()
        for name in ("dispersion", "dispersion_bias"):
            means[name] = math.sqrt(means[name])
        return {str(name): float(value) for name, value in means.items()}

    def _family(self, family: str) -> Family:
        """Put the windows of a family side by side; a portfolio that a window lacks is NaN in it."""
        variance = pd.DataFrame(self.variance[family]).reindex(columns=range(len(self.sections)))
        realised = np.full((variance.shape[1], self.rules.step, len(variance)), np.nan)
        for number, part in self.realised[family].items():
            realised[number][:, variance.index.get_indexer(part.columns)] = part.to_numpy()
        return Family(realised, variance.to_numpy(dtype=np.float64).T)


_LEAST_CHOICE = 2.0  # equal weights that the largest weight of a long-only portfolio may always be
_LASTING = {"equal_weight", "cap_weight", "sectors", "minimum_variance", "minimum_variance_long_only"}
"""Families whose portfolios are the same ones at the next date: of those, turnover means something."""


def _by_date(values: Float64Array) -> Float64Array:
    """Mean over known portfolios (date,) of (window, period, portfolio)."""
    flat = values.reshape(-1, values.shape[-1])
    known = np.isfinite(flat)
    count = known.sum(axis=1)
    mean: Float64Array = np.where(known, flat, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
    return mean


def _change(before: tuple[pd.Index, FactorForm], now: tuple[pd.Index, FactorForm]) -> dict[str, float]:
    """Compare the loadings and the systematic covariance of two forecasts on the stocks that both cover."""
    places = before[0].get_indexer(now[0])
    both = places >= 0
    if both.sum() < 2:
        return {}
    one, other = before[1].restricted(places[both]), now[1].restricted(both)
    found = {
        "subspace_overlap": subspace_overlap(one.loadings, other.loadings),
        "systematic_change": float(
            covariance_distance((one.loadings[None], other.loadings[None]), (one.omega[None], other.omega[None]))[0]
        ),
    }
    if one.loadings.shape == other.loadings.shape:
        correlations = factor_stability(one.loadings, other.loadings)
        known = correlations[np.isfinite(correlations)]
        found |= {"factor_stability": float(known.mean())} if known.size else {}
    return found
