"""Variance of every stock over a horizon, from its own past and that of the whole cross-section.

Here belong forecasts of single stocks' variances. How stocks move together belongs in `covariance`, what a calibrated
model makes of both in `calibration`.

Two levels (as in the HAR of Corsi 2009, A simple approximate long-memory model of realized volatility, on EWMA
variances of several half-lives): the level M of the cross-section, a fixed geometric mean of its mean variances, as
there are few independent observations of it; and the deviation of a stock from the level, by one pooled regression
(gamma with log link, which minimises QLIKE), as there are many.
"""

from __future__ import annotations

import numpy as np

from models.arrays import BoolArray, Float64Array, FloatArray, NamedArrays
from schemas.base import Argued
from schemas.calibration import VolatilitySpec

_MOST_LOG_DEVIATION = 6.0
_SCORING_STEPS = 8
_LEAST_VARIANCE = 1e-12
_FREE = 1e-3  # weight of the prior of the intercept, which is left to the data


class StockVolatility(VolatilitySpec, Argued):
    """Variance per period of each stock, on average over the next `horizon` periods, in squared decimals.

    Each stock has its own clock: a date without return is skipped. A stock with fewer than `min_observations` returns
    has the median variance, and no stock less than `floor` times the median. Parameters, all by name, are the fields of
    `schemas.calibration.VolatilitySpec`.

    Every `horizon` dates the deviations that were forecast meet those that came, and the pooled slopes are moved by one
    regression with the earlier ones as its prior, which forgets; so one more date costs one date. The forecast is
    (M c exp(b'x))^(1 - a) v^a with c the realised over the forecast level in the past, x the log deviations of the
    EWMA variances, and v the plain EWMA variance of the stock with weight a = `own_weight`.
    """

    def start(self, n_stocks: int) -> NamedArrays:
        """Return the state before the first date: arrays by name; those of stocks end with the axis ``ticker``."""
        n_lives, n_slopes = len(self._lives), len(self.halflives) + 1
        return {
            "variance": np.zeros((n_lives, n_stocks)),
            "mass": np.zeros((n_lives, n_stocks)),
            "count": np.zeros(n_stocks),
            "levels": np.full(self.horizon, np.nan),
            "squares": np.full(self.horizon, np.nan),
            "level_sum": np.zeros(2),
            "slopes": self._prior,
            "information": np.zeros((n_slopes, n_slopes)),
            "moment": np.zeros(n_slopes),
            "features": np.full((n_slopes, n_stocks), np.nan),
            "realised": np.zeros((2, n_stocks)),
            "age": np.zeros(()),
        }

    def step(self, state: NamedArrays, returns: FloatArray) -> NamedArrays:
        """Return the state after one more date of returns (ticker,), NaN where unknown; what was given stays."""
        squares = np.square(returns.astype(np.float64))
        known = np.isfinite(squares)
        trusted = known & (state["count"] >= self.min_observations)
        after = dict(state)
        decay = np.power(0.5, 1.0 / np.asarray(self._lives))[:, np.newaxis]
        after["mass"] = np.where(known, decay * state["mass"] + 1.0, state["mass"])
        change = (squares - state["variance"]) / np.maximum(after["mass"], 1.0)
        after["variance"] = state["variance"] + np.where(known, change, 0.0)
        after["count"] = state["count"] + known
        mean_square = float(squares[trusted].mean()) if trusted.any() else np.nan
        after |= self._level_step(state, mean_square, self._level(after))
        return after | self._slopes_step(after, squares, known)

    def read(self, state: NamedArrays) -> Float64Array:
        """Return the variance (ticker,) over the next periods; NaN while no stock has enough returns."""
        trusted = self.trusted(state)
        if not trusted.any():
            return np.full(len(trusted), np.nan)
        deviation = np.exp(self._log_deviation(state["slopes"], self._features(state)))
        deviation /= deviation[trusted].mean()
        own = np.maximum(state["variance"][-1], _LEAST_VARIANCE)
        pooled = state["levels"][-1] * self._level_ratio(state) * deviation
        variance = pooled ** (1.0 - self.own_weight) * own**self.own_weight
        median = np.median(variance[trusted])
        found: Float64Array = np.where(trusted, np.maximum(variance, self.floor * median), median)
        return found

    def trusted(self, state: NamedArrays) -> BoolArray:
        """Which stocks have enough returns (ticker,)."""
        enough: BoolArray = state["count"] >= self.min_observations
        return enough

    @property
    def _lives(self) -> tuple[float, ...]:
        return (*self.halflives, self.own_halflife)

    @property
    def _prior(self) -> Float64Array:
        return np.array([0.0, *self.slopes])

    def _level(self, state: NamedArrays) -> float:
        """Geometric mean, weighed by `level_weights`, of the cross-section's mean variances."""
        trusted = self.trusted(state)
        if not trusted.any():
            return np.nan
        means = np.maximum(state["variance"][: len(self.level_weights), trusted].mean(axis=1), _LEAST_VARIANCE)
        weights = np.asarray(self.level_weights)
        return float(np.exp(weights @ np.log(means) / weights.sum()))

    def _level_step(self, state: NamedArrays, mean_square: float, level: float) -> NamedArrays:
        """Compare the level that was forecast a horizon ago with what came."""
        squares = np.append(state["squares"][1:], mean_square)
        ratio = squares.mean() / state["levels"][0]
        sums = state["level_sum"]
        if np.isfinite(ratio):
            sums = 0.5 ** (1.0 / self.level_halflife) * sums + np.array([ratio, 1.0])
        return {"levels": np.append(state["levels"][1:], level), "squares": squares, "level_sum": sums}

    def _level_ratio(self, state: NamedArrays) -> float:
        ratio, mass = state["level_sum"]
        return float((ratio + self.level_prior) / (mass + self.level_prior))

    def _features(self, state: NamedArrays) -> Float64Array:
        """Return one, and the log deviations of the EWMA variances from the cross-section's (1 + half-life, ticker)."""
        trusted = self.trusted(state)
        logs = np.log(np.maximum(state["variance"][:-1], _LEAST_VARIANCE))
        deviations = np.where(trusted, logs - logs[:, trusted].mean(axis=1, keepdims=True), 0.0)
        return np.concatenate([np.ones((1, len(trusted))), deviations])

    def _log_deviation(self, slopes: Float64Array, features: Float64Array) -> Float64Array:
        total = np.zeros(features.shape[1])
        for slope, row in zip(slopes, features, strict=True):  # stock by stock: no product that rounds by its size
            total += slope * row
        return np.clip(total, -_MOST_LOG_DEVIATION, _MOST_LOG_DEVIATION)

    def _slopes_step(self, state: NamedArrays, squares: Float64Array, known: BoolArray) -> NamedArrays:
        """Gather what comes after a forecast of deviations; at the end of its horizon learn from it, and begin anew."""
        waiting = bool(np.isfinite(state["features"]).any())
        realised, age = state["realised"], state["age"]
        learnt: NamedArrays = {}
        if waiting:
            realised = realised + np.stack([np.where(known, squares, 0.0), known.astype(np.float64)])
            age = age + 1.0
            if age == self.horizon:
                learnt = self._learnt(state, realised)
                waiting = False
        if not waiting and self.trusted(state).any():
            features = np.where(self.trusted(state), self._features(state), np.nan)
            return learnt | {"features": features, "realised": np.zeros_like(realised), "age": np.zeros(())}
        return {"realised": realised, "age": np.asarray(age)}

    def _learnt(self, state: NamedArrays, realised: Float64Array) -> NamedArrays:
        """Fisher scoring of one cross-section, with the sums of earlier ones and the ridge as its prior."""
        total, count = realised
        used = np.isfinite(state["features"][0]) & (count * 2.0 > self.horizon) & (total > 0.0)
        if used.sum() <= len(self._prior):
            return {}
        x = state["features"][:, used]
        target = total[used] / count[used]
        target = target / target.mean()
        decay = 0.5 ** (1.0 / self.slope_halflife)
        information, moment = decay * state["information"] + x @ x.T / x.shape[1], decay * state["moment"]
        ridge = np.diag([_FREE, *[self.ridge] * len(self.slopes)])
        slopes = state["slopes"]
        for _ in range(_SCORING_STEPS):
            fitted = self._log_deviation(slopes, x)
            working = fitted + target * np.exp(-fitted) - 1.0
            seen = moment + (x * working).sum(axis=1) / x.shape[1]
            slopes = np.linalg.solve(information + ridge, seen + ridge @ self._prior)
        return {"slopes": slopes, "information": information, "moment": seen}
