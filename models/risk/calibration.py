"""A model's covariance of stocks, X Omega X' + D, brought in line with what its forecasts met out of sample.

Here belong the stages that look at all that a model says of a date, and at what came of it later. Estimators of Omega
and of D belong in `covariance` and `specific`, those of single stocks' variances in `volatility`.

With S = X Omega X' + D and q^2 its diagonal, psi = D / q^2 is the specific share of a stock's variance (never below
`floor`), and A = X Omega^(1/2) / (q psi^(1/2)) the model in whitened coordinates, with eigenvalues lambda_k = 1 + s_k^2
for the singular values s_k of A and 1 for whatever no factor explains. The stages, each of which may be left out:

1. *Curve*. Over each past horizon rho_k is the mean of (u_k'y)^2 / lambda_k, where y are the whitened returns and u_k,
   lambda_k what was said before; the same for the remaining directions together, delta. Only their shape counts: y is
   scaled so that its mean square is what the model says. Eigenvalues become max(lambda_k rho_k, gap delta) and delta.
   Simulated eigenfactor adjustment (Menchero, Wang and Orr 2011, Improving Risk Forecasts for Optimized Portfolios)
   mends what sampling does to them; this also what the drift of the structure does.
2. *Diagonal*. Each stock's row is scaled, so that its variance is the one that `StockVolatility` forecasts.
3. *Market*. The leading eigenvalue is scaled by what equal weights met: correlations of standardised returns weigh
   quiet days like crises.
4. *Budget*. A factor on which every stock has a loading of one has the variance by which minimum variance portfolios
   were riskier than said, less what is known to be diversified: the estimation error of whoever optimises. It is taken
   out of the leading direction, so that equal weights keep their risk.

Omega is changed in the coordinates of its factors, Omega^(1/2) V diag(.) V' Omega^(1/2)', so that factors keep their
names, and nothing depends on how latent ones are turned. No ticker x ticker matrix is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.arrays import BoolArray, Float64Array, FloatArray, IntArray, NamedArrays, under
from models.risk.volatility import StockVolatility
from schemas.base import Argued
from schemas.calibration import BudgetSpec, CalibrationSpec, CurveSpec, MarketSpec, VolatilitySpec

BUDGET = "budget"
"""Name of the factor of estimation error."""
_CLIP = 8.0  # standard deviations of a whitened return that one print may count for
_NOTHING = 1e-12  # share of the largest squared singular value below which a direction has no content
_MOST_TAKEN = 0.5  # share of the leading eigenvalue that the budget factor may take


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What a model says of a date once it is calibrated.

    Attributes
    ----------
    scale : numpy.ndarray
        (ticker,) by which each stock's loadings are multiplied; NaN where the model says nothing of it.
    omega : numpy.ndarray
        (factor, factor) with the budget factor last, if there is one.
    specific_variance : numpy.ndarray
        (ticker,)
    directions : numpy.ndarray
        (ticker, factor) singular vectors u of the whitened model; zero where not covered.
    eigenvalues : numpy.ndarray
        (factor,) lambda, before they are corrected, in descending order.
    deviation : numpy.ndarray
        (ticker,) by which returns are whitened; infinite where not covered.
    minimum_variance : numpy.ndarray
        (ticker,) weights of the minimum variance portfolio of the covered stocks, without the budget factor.
    variances : numpy.ndarray
        Variance of equal weights over the covered stocks, and of that portfolio.
    """

    scale: Float64Array
    omega: Float64Array
    specific_variance: Float64Array
    directions: Float64Array
    eigenvalues: Float64Array
    deviation: Float64Array
    minimum_variance: Float64Array
    variances: Float64Array


class Calibration(CalibrationSpec, Argued):
    """Stages between a model's estimates and its forecasts: see the module.

    Parameters, all by name, are the fields of `schemas.calibration.CalibrationSpec`.

    A state holds the sums of past horizons and the horizon that is running, and the state of `StockVolatility`. The
    order of a date is `step` with its returns, `read` with what the model says at its close, and `opened` with what was
    read, which begins a horizon where none is running.
    """

    def start(self, n_factors: int, n_stocks: int) -> NamedArrays:
        """Return the state before the first date; arrays of stocks end with the axis ``ticker``."""
        waiting = {
            "directions": np.zeros((n_factors, n_stocks)),
            "eigenvalues": np.ones(n_factors),
            "deviation": np.full(n_stocks, np.inf),
            "minimum_variance": np.zeros(n_stocks),
            "variances": np.zeros(2),
            "projected": np.zeros(n_factors),
            "squares": np.zeros(2),
            "earned": np.zeros(2),
            "age": np.full((), -1.0),
        }
        curve, market, budget = self.curve or CurveSpec(), self.market or MarketSpec(), self.budget or BudgetSpec()
        sums = {
            "curve": np.full((n_factors, 2), curve.prior),
            "rest": np.full(2, curve.prior),
            "market": np.full(2, market.prior),
            "budget": budget.prior * np.array([budget.prior_ratio, 1.0]),
        }
        stocks = _stock_volatility(self.volatility)
        volatility = {f"volatility.{name}": array for name, array in stocks.start(n_stocks).items()}
        return volatility | waiting | sums

    @staticmethod
    def of_stocks(state: NamedArrays) -> list[str]:
        """Name the arrays of a state whose last axis is ``ticker``."""
        stocks = ("variance", "mass", "count", "features", "realised")
        own = ["directions", "deviation", "minimum_variance"]
        return [*own, *(name for name in state if name.removeprefix("volatility.") in stocks)]

    def step(self, state: NamedArrays, returns: FloatArray) -> NamedArrays:
        """Return the state after one more date of returns (ticker,), NaN where unknown; what was given stays."""
        volatility = _stock_volatility(self.volatility).step(self._volatility(state), returns)
        after = state | {f"volatility.{name}": array for name, array in volatility.items()}
        if state["age"] < 0.0:
            return after
        known = np.isfinite(returns) & np.isfinite(state["deviation"])
        r = returns[known].astype(np.float64)
        whitened = np.clip(r / state["deviation"][known], -_CLIP, _CLIP)
        directions, weights = state["directions"][:, known], state["minimum_variance"][known]
        earned = np.array([r.mean() if len(r) else 0.0, r @ weights])
        after |= {
            "projected": state["projected"] + np.square(directions @ whitened),
            "squares": state["squares"] + np.array([np.square(whitened).sum(), known.sum()]),
            "earned": state["earned"] + np.square(earned),
            "age": state["age"] + 1.0,
        }
        return after | self._closed(after) if after["age"] == self.volatility.horizon else after

    def read(
        self,
        state: NamedArrays,
        loadings: FloatArray,
        omega: Float64Array,
        specific_variance: FloatArray,
        covered: BoolArray,
    ) -> Calibrated | None:
        """Calibrate what a model says as of the date of a state; None if it says nothing, or no variance is known yet.

        Parameters
        ----------
        loadings : numpy.ndarray
            (ticker, factor); NaN where the model says nothing.
        omega, specific_variance : numpy.ndarray
            (factor, factor) and (ticker,) per period.
        covered : numpy.ndarray
            (ticker,) stocks by which the model is judged: those whose loadings are their own.
        """
        stocks, known = _stock_volatility(self.volatility), self._volatility(state)
        variance = stocks.read(known)
        x, d = loadings.astype(np.float64), specific_variance.astype(np.float64)
        told = np.isfinite(x).all(axis=1) & np.isfinite(d)
        covered = covered & told & stocks.trusted(known)
        if not (np.isfinite(omega).all() and np.isfinite(variance).all() and covered.any()):
            return None
        root = _root(omega)
        place = np.flatnonzero(told)
        whitened, specific = self._whitened(x[told] @ root, d[told])
        inside = covered[told]
        squared, turn = np.linalg.eigh(whitened[inside].T @ whitened[inside])
        squared, turn = np.maximum(squared[::-1], 0.0), turn[:, ::-1]
        content = squared > _NOTHING * max(squared[0], _NOTHING)
        along = whitened @ turn
        ratio, rest = self._corrected(state, squared, content)
        shares = np.square(along)
        own = specific * (shares @ ratio + rest)
        scale = np.sqrt(variance[told] / own)
        whitening = np.sqrt(variance[told] / (shares.sum(axis=1) + 1.0))
        final = specific * rest * np.square(scale)
        lead, budget, weights, variances = self._levels(
            state, (along * np.sqrt(specific)[:, None] * scale[:, None])[inside], ratio, final[inside]
        )
        ratio = ratio * np.concatenate([[lead], np.ones(len(ratio) - 1)])
        core = root @ (turn * ratio) @ turn.T @ root.T
        found = Calibrated(
            scale=_spread(scale, place, len(x), np.nan),
            omega=self._with_budget(0.5 * (core + core.T), budget),
            specific_variance=_spread(final, place, len(x), np.nan),
            directions=np.zeros_like(x),
            eigenvalues=1.0 + squared,
            deviation=_spread(np.where(inside, whitening, np.inf), place, len(x), np.inf),
            minimum_variance=_spread(weights, place[inside], len(x), 0.0),
            variances=variances,
        )
        unit = np.where(content, 1.0 / np.sqrt(np.where(content, squared, 1.0)), 0.0)
        found.directions[place[inside]] = along[inside] * unit
        return found

    def opened(self, state: NamedArrays, found: Calibrated | None) -> NamedArrays:
        """Begin a horizon with what was read, unless one is running or nothing was."""
        if found is None or state["age"] >= 0.0:
            return state
        n_factors = len(found.eigenvalues)
        return state | {
            "directions": np.ascontiguousarray(found.directions.T),
            "eigenvalues": found.eigenvalues,
            "deviation": found.deviation,
            "minimum_variance": found.minimum_variance,
            "variances": found.variances,
            "projected": np.zeros(n_factors),
            "squares": np.zeros(2),
            "earned": np.zeros(2),
            "age": np.zeros(()),
        }

    def _volatility(self, state: NamedArrays) -> NamedArrays:
        return under("volatility.", state)

    def _whitened(self, loaded: Float64Array, d: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return A (ticker, factor), and the specific variance with its floor."""
        specific = np.maximum(d, self.floor * (np.square(loaded).sum(axis=1) + d))
        return loaded / np.sqrt(specific)[:, np.newaxis], specific

    def _corrected(self, state: NamedArrays, squared: Float64Array, content: BoolArray) -> tuple[Float64Array, float]:
        """Return by what each squared singular value is multiplied, and the eigenvalue of the rest."""
        if self.curve is None:
            return np.ones_like(squared), 1.0
        rho = _smooth(_ratio(state["curve"]), self.curve)
        rest = float(_ratio(state["rest"]))
        wanted = np.maximum((1.0 + squared) * rho, self.curve.gap * rest) - rest
        return np.where(content, wanted / np.where(content, squared, 1.0), 0.0), rest

    def _levels(
        self, state: NamedArrays, along: Float64Array, ratio: Float64Array, specific: Float64Array
    ) -> tuple[float, float, Float64Array, Float64Array]:
        """Return the factor on the leading eigenvalue, the variance of the budget factor, and the portfolios judged by.

        ``along`` (ticker, factor) are the rows along the eigenvectors, of which ``ratio`` is the variance.
        """
        lead = 1.0 if self.market is None else float(_ratio(state["market"]))
        variance = ratio * np.concatenate([[lead], np.ones(len(ratio) - 1)])
        exposure = along.mean(axis=0)
        equal = float(np.square(exposure) @ variance + specific.sum() / len(specific) ** 2)
        loaded = along * np.sqrt(variance)
        precise = loaded / specific[:, np.newaxis]
        inner = np.eye(len(ratio)) + precise.T @ loaded
        solved = 1.0 / specific - precise @ np.linalg.solve(inner, precise.sum(axis=0))
        total = float(solved.sum())
        weights = solved / total
        budget = 0.0
        if self.budget is not None:
            excess = float(_ratio(state["budget"])) - 1.0
            leading = float(np.square(exposure[0]) * variance[0])
            budget = float(np.clip(self.budget.share * excess / total, 0.0, _MOST_TAKEN * leading))
            lead *= 1.0 - budget / leading if leading > 0.0 else 1.0
        return lead, budget, weights, np.array([equal, 1.0 / total])

    def _with_budget(self, omega: Float64Array, variance: float) -> Float64Array:
        if self.budget is None:
            return omega
        wide = np.zeros((len(omega) + 1, len(omega) + 1))
        wide[:-1, :-1], wide[-1, -1] = omega, variance
        return wide

    def _closed(self, state: NamedArrays) -> NamedArrays:
        """Add what a horizon has shown to the sums, and wait for the next to begin."""
        found: NamedArrays = {"age": np.full((), -1.0)}
        squares, known = state["squares"]
        if squares <= 0.0:
            return found
        length, eigenvalues = float(self.volatility.horizon), state["eigenvalues"]
        n_covered = int(np.isfinite(state["deviation"]).sum())
        n_rest = max(n_covered - len(eigenvalues), 1)
        said = (eigenvalues.sum() + n_covered - len(eigenvalues)) / n_covered
        shape = said / (squares / known)
        projected = state["projected"] * shape / length
        rest = max(squares * shape / length * (n_covered * length / known) - projected.sum(), 0.0) / n_rest
        if self.curve is not None:
            found["curve"] = _decayed(state["curve"], self.curve.halflife, projected / eigenvalues)
            found["rest"] = _decayed(state["rest"], self.curve.halflife, rest)
        equal, least = state["earned"] / length / state["variances"]
        if self.market is not None:
            found["market"] = _decayed(state["market"], self.market.halflife, equal)
        if self.budget is not None:
            found["budget"] = _decayed(state["budget"], self.budget.halflife, least)
        return found


@lru_cache(maxsize=16)
def _stock_volatility(spec: VolatilitySpec) -> StockVolatility:
    """Return the estimator of a spec, made once: validation costs as much as a date."""
    return StockVolatility(**spec.model_dump())


def _root(omega: Float64Array) -> Float64Array:
    """Return a root of a positive semi-definite matrix, R R' = omega."""
    values, vectors = np.linalg.eigh(omega)
    root: Float64Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _spread(values: Float64Array, place: IntArray, size: int, elsewhere: float) -> Float64Array:
    wide = np.full(size, elsewhere)
    wide[place] = values
    return wide


def _ratio(sums: Float64Array) -> Float64Array:
    """Mean ratio from sums of ratios and of their weights (..., 2)."""
    ratio: Float64Array = np.asarray(sums[..., 0] / sums[..., 1])
    return ratio


def _decayed(sums: Float64Array, halflife: float, ratio: Float64Array | float) -> Float64Array:
    after: Float64Array = 0.5 ** (1.0 / halflife) * sums + np.stack([np.asarray(ratio), np.ones_like(ratio)], axis=-1)
    return after


def _smooth(ratios: Float64Array, curve: CurveSpec) -> Float64Array:
    """Smooth the logs of ratios over log rank, the first apart."""
    if len(ratios) < 3:
        return ratios
    kernel = _kernel(len(ratios), curve.bandwidth)
    smooth = np.exp((kernel @ np.log(np.maximum(ratios[1:], _NOTHING))) / kernel.sum(axis=1))
    return np.concatenate([ratios[:1], smooth])


@lru_cache(maxsize=16)
def _kernel(n_ranks: int, bandwidth: float) -> Float64Array:
    place = np.log(np.arange(2, n_ranks + 1))
    kernel: Float64Array = np.exp(-0.5 * np.square((place[:, np.newaxis] - place) / bandwidth))
    return kernel
