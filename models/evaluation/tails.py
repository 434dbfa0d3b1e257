"""Back-tests of value at risk and expected shortfall: whether losses beyond it are as many and as far as said.

Here belong tests of standardised returns z (date, portfolio) against a distribution of variance 1, each column by
itself; NaN is left out. What z is in the middle of its distribution is judged in `calibration`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from models.arrays import Float64Array
from schemas.errors import ConfigError

Zone = Literal["green", "yellow", "red"]


@dataclass(frozen=True)
class Tail:
    """Lower tail of a distribution of mean 0 and variance 1.

    Attributes
    ----------
    level : float
        Confidence, such as .99: a share 1 - level of returns is expected beyond the quantile.
    quantile, shortfall : float
        Value at risk and expected shortfall in volatilities, positive.
    degrees : float or None
        Degrees of freedom of a Student t scaled to variance 1; None for the normal.
    """

    level: float
    quantile: float
    shortfall: float
    degrees: float | None = None


def tail(level: float, degrees: float | None = None) -> Tail:
    """Return the quantile and shortfall of a normal, or of a Student t with more than 2 degrees of freedom.

    With a = 1 - level and q the quantile of a the shortfall of the normal is phi(q) / a, that of the t
    f(q) / a (nu + q^2) / (nu - 1), scaled by sqrt((nu - 2) / nu) to variance 1 (McNeil, Frey and Embrechts 2015, 2.3).
    """
    if not 0.5 < level < 1.0:
        raise ConfigError(f"The level of a tail lies between .5 and 1, not {level:g}.")
    a = 1.0 - level
    if degrees is None:
        q = float(stats.norm.ppf(a))
        return Tail(level, -q, float(stats.norm.pdf(q)) / a)
    if degrees <= 2.0:
        raise ConfigError(f"A Student t needs more than 2 degrees of freedom to have a variance, not {degrees:g}.")
    q, scale = float(stats.t.ppf(a, degrees)), math.sqrt((degrees - 2.0) / degrees)
    shortfall = float(stats.t.pdf(q, degrees)) / a * (degrees + q * q) / (degrees - 1.0)
    return Tail(level, -q * scale, shortfall * scale, degrees)


def violations(z: Float64Array, beyond: Tail) -> Float64Array:
    """Whether z (date, portfolio) lies below the value at risk: 1 or 0, NaN where z is not known."""
    hits: Float64Array = np.where(np.isfinite(z), (z < -beyond.quantile).astype(np.float64), np.nan)
    return hits


def kupiec(hits: Float64Array, level: float) -> tuple[Float64Array, Float64Array]:
    """Likelihood ratio of the share of violations against 1 - level (Kupiec 1995), and its p-value.

    Parameters
    ----------
    hits : numpy.ndarray
        (date, portfolio), see `violations`.
    level : float
        Confidence of the value at risk.

    Returns
    -------
    statistic, p_value : numpy.ndarray
        (portfolio,), chi-square with 1 degree of freedom; NaN without a known date.
    """
    total, found = np.isfinite(hits).sum(axis=0), np.nansum(hits, axis=0)
    share = found / np.where(total > 0, total, np.nan)
    statistic = 2.0 * (_bernoulli(found, total, share) - _bernoulli(found, total, np.full(share.shape, 1.0 - level)))
    return statistic, _chi_square(statistic, 1)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Tests of Christoffersen (1998), all (portfolio,).

    Attributes
    ----------
    independence, independence_p : numpy.ndarray
        Likelihood ratio of a first-order Markov chain against independent violations, 1 degree of freedom.
    conditional, conditional_p : numpy.ndarray
        That and the share of violations together, 2 degrees of freedom.
    """

    independence: Float64Array
    independence_p: Float64Array
    conditional: Float64Array
    conditional_p: Float64Array


def christoffersen(hits: Float64Array, level: float) -> Coverage:
    """Test whether violations come one by one, and as many as they should.

    Both likelihoods are those of the dates that have one before, so that the two ratios add up.

    Parameters
    ----------
    hits : numpy.ndarray
        (date, portfolio), see `violations`; a pair of neighbours counts if both are known.
    level : float
        Confidence of the value at risk.
    """
    before, after = hits[:-1], hits[1:]
    both = np.isfinite(before) & np.isfinite(after)
    counts = {
        (was, now): (both & (before == was) & (after == now)).sum(axis=0).astype(np.float64)
        for was in (0, 1)
        for now in (0, 1)
    }
    total, found = both.sum(axis=0), counts[0, 1] + counts[1, 1]
    share = found / np.where(total > 0, total, np.nan)
    free = np.zeros(hits.shape[1])
    for was in (0, 1):
        row = counts[was, 0] + counts[was, 1]
        free += _bernoulli(counts[was, 1], row, counts[was, 1] / np.maximum(row, 1.0))
    same = _bernoulli(found, total, share)
    independence = 2.0 * (free - same)
    conditional = 2.0 * (free - _bernoulli(found, total, np.full(share.shape, 1.0 - level)))
    conditional = np.where(total > 0, conditional, np.nan)
    return Coverage(independence, _chi_square(independence, 1), conditional, _chi_square(conditional, 2))


@dataclass(frozen=True, eq=False)
class ShortfallTest:
    """Tests of Acerbi and Szekely (2014), all (portfolio,); negative if expected shortfall is under-forecast.

    Attributes
    ----------
    z1, z1_p : numpy.ndarray
        Mean loss of violations against the shortfall, given that there are any; NaN if there is none.
    z2, z2_p : numpy.ndarray
        Sum of losses of violations against what is expected of their number and size together.
    """

    z1: Float64Array
    z1_p: Float64Array
    z2: Float64Array
    z2_p: Float64Array


def acerbi_szekely(z: Float64Array, beyond: Tail, *, n_simulations: int = 5000, seed: int = 0) -> ShortfallTest:
    """Test the expected shortfall without a value of its own to be observed.

    Z1 = sum(z_t I_t) / (N ES) + 1 and Z2 = sum(z_t I_t) / (T a ES) + 1, I_t = z_t < -VaR, N their number, a = 1 -
    level: both are 0 on average if the forecast is right. P-values are shares of simulated statistics at or below.

    Parameters
    ----------
    z : numpy.ndarray
        (date, portfolio) standardised returns.
    beyond : Tail
        What they are said to follow.
    n_simulations, seed : int
        Series of independent draws from it, the same for columns of as many dates.
    """
    count = np.isfinite(z).sum(axis=0)
    with np.errstate(invalid="ignore"):
        hit = z < -beyond.quantile
    lost, number = np.where(hit, z, 0.0).sum(axis=0), hit.sum(axis=0).astype(np.float64)
    found = np.full((4, z.shape[1]), np.nan)
    found[0], found[2] = _statistics(lost, number, count, beyond)
    for n in np.unique(count[count > 0]):
        columns = count == n
        drawn = _simulated(int(n), n_simulations, beyond, np.random.default_rng([seed, int(n)]))
        for place, values in zip((1, 3), drawn, strict=True):
            ordered = np.sort(values[np.isfinite(values)])
            at_or_below = np.searchsorted(ordered, found[place - 1, columns] + 1e-12, side="right")
            found[place, columns] = at_or_below / max(len(ordered), 1)
    found[1] = np.where(np.isfinite(found[0]), found[1], np.nan)
    return ShortfallTest(*found)


def basel_zone(n_violations: int, n_observations: int = 250, level: float = 0.99) -> Zone:
    """Traffic light of the Basel Committee (1996): how unlikely so many violations are if the value at risk is right.

    Yellow from the number whose cumulative binomial probability reaches 95 %, red from 99.99 %: at 250 dates and 99 %
    from 5 and from 10 violations.
    """
    probability = float(stats.binom.cdf(n_violations, n_observations, 1.0 - level))
    if probability >= 0.9999:
        return "red"
    return "yellow" if probability >= 0.95 else "green"


def _simulated(
    n_dates: int, n_simulations: int, beyond: Tail, rng: np.random.Generator
) -> tuple[Float64Array, Float64Array]:
    """Z1 and Z2 of simulated series: their violations alone are drawn, a binomial number of them from the tail."""
    chance = 1.0 - beyond.level
    number = rng.binomial(n_dates, chance, n_simulations)
    tail_chance = chance * rng.random(int(number.sum()))
    drawn: Float64Array = np.asarray(special.ndtri(tail_chance), dtype=np.float64)
    if beyond.degrees is not None:
        scale = math.sqrt((beyond.degrees - 2.0) / beyond.degrees)
        drawn = np.asarray(special.stdtrit(beyond.degrees, tail_chance) * scale, dtype=np.float64)
    series = np.repeat(np.arange(n_simulations), number)
    lost: Float64Array = np.asarray(np.bincount(series, weights=drawn, minlength=n_simulations), dtype=np.float64)
    count = np.full(n_simulations, n_dates, dtype=np.int64)
    return _statistics(lost, number.astype(np.float64), count, beyond)


def _statistics(
    lost: Float64Array, number: Float64Array, count: npt.NDArray[np.int64], beyond: Tail
) -> tuple[Float64Array, Float64Array]:
    """Z1 and Z2 from the sum and number of violations among so many dates; NaN where there is none."""
    expected = np.where(count > 0, count * (1.0 - beyond.level), np.nan)
    return lost / np.where(
        number > 0, number, np.nan
    ) / beyond.shortfall + 1.0, lost / expected / beyond.shortfall + 1.0


def _bernoulli(found: Float64Array, total: Float64Array, share: Float64Array) -> Float64Array:
    """Log-likelihood of so many of a total at a probability; 0 ln 0 is 0."""
    happened, not_happened = special.xlogy(found, share), special.xlogy(total - found, 1.0 - share)
    return np.asarray(happened + not_happened, dtype=np.float64)


def _chi_square(statistic: Float64Array, freedom: int) -> Float64Array:
    return np.asarray(special.chdtrc(freedom, np.maximum(statistic, 0.0)), dtype=np.float64)
