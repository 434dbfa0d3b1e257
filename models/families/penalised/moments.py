"""Sums of cross-products that a penalised regression is computed from, and their centring and standardisation.

Here belongs the way from Gram statistics, or from many short regressions side by side, to the quadratic form that the
solvers minimise, and back to slopes in the units of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.statistics.gram import GramStatistics

_CONSTANT = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Half the mean squared error as a function of the slopes: variance / 2 - moment'b + b' gram b / 2.

    Attributes
    ----------
    gram : numpy.ndarray
        (..., k, k) weighted covariance of the regressors, or their correlation; the divisor is the sum of weights.
    moment : numpy.ndarray
        (..., k) their weighted covariance with the response.
    variance : numpy.ndarray
        (...) weighted variance of the response; 1 if standardised.
    scale : numpy.ndarray
        (..., k) what regressors were divided by: standard deviations, or 1; 0 for a regressor that does not vary,
        whose slope is 0.
    mean : numpy.ndarray
        (..., k) means of the regressors.
    response_mean : numpy.ndarray
        (...) mean of the response.
    response_scale : numpy.ndarray
        (...) what the response was divided by: its standard deviation, or 1.
    """

    gram: FloatArray
    moment: FloatArray
    variance: FloatArray
    scale: FloatArray
    mean: FloatArray
    response_mean: FloatArray
    response_scale: FloatArray

    def slopes(self, coefficients: FloatArray) -> FloatArray:
        """Take solutions (..., penalty, k) to the units of the data, intercept first: (..., penalty, 1 + k)."""
        varies = self.scale > 0.0
        inverse = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=varies)
        slopes = coefficients * (self.response_scale[..., None] * inverse)[..., None, :]
        intercept = self.response_mean[..., None] - (slopes * self.mean[..., None, :]).sum(axis=-1)
        return np.concatenate([intercept[..., None], slopes], axis=-1)

    def at(self, positions: npt.NDArray[np.intp]) -> Quadratic:
        """Problems at these positions of the first axis."""
        return Quadratic(*(getattr(self, name)[positions] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums of cross-products of the regressors, of which the first is a column of ones, and the response.

    Attributes
    ----------
    zz, zr, rr : numpy.ndarray
        (..., 1 + k, 1 + k) Z'WZ, (..., 1 + k) Z'Wr and (...) r'Wr.
    """

    zz: FloatArray
    zr: FloatArray
    rr: FloatArray

    @property
    def weight(self) -> FloatArray:
        """(...) sum of weights; the number of rows if they have equal weights of 1."""
        total: FloatArray = self.zz[..., 0, 0]
        return total

    def quadratic(self, *, standardise: bool) -> Quadratic:
        """Take means out, so that the intercept is not penalised, and standardise regressors and response if asked to.

        A penalty then has no units: an elastic net, whose two parts scale differently with the response, does not
        depend on whether returns are in decimals or in percent. ``glmnet`` standardises both, too. Problems without
        rows get zeros, of which the solution is zero.
        """
        weight = np.where(self.weight > 0.0, self.weight, 1.0)
        mean = self.zz[..., 0, 1:] / weight[..., None]
        response_mean = self.zr[..., 0] / weight
        raw = self.zz[..., 1:, 1:] / weight[..., None, None]
        gram = raw - mean[..., :, None] * mean[..., None, :]
        moment = self.zr[..., 1:] / weight[..., None] - mean * response_mean[..., None]
        variance = np.maximum(self.rr / weight - response_mean**2, 0.0)
        diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
        varies = diagonal > _CONSTANT * np.diagonal(raw, axis1=-2, axis2=-1)
        deviation, response_scale = np.ones_like(diagonal), np.ones_like(variance)
        if standardise:
            deviation = np.sqrt(np.where(varies, diagonal, 1.0))
            response_scale = np.sqrt(np.where(variance > _CONSTANT * self.rr / weight, variance, 1.0))
        inverse = np.where(varies, 1.0 / deviation, 0.0)
        gram = gram * inverse[..., :, None] * inverse[..., None, :]
        scale = np.where(varies, deviation, 0.0)
        moment = moment * inverse / response_scale[..., None]
        return Quadratic(gram, moment, variance / response_scale**2, scale, mean, response_mean, response_scale)


def pooled_moments(gram: GramStatistics, date_weights: FloatArray) -> Moments:
    """Sum Gram statistics over weighted dates: one pooled regression per row of ``date_weights``.

    Weights of 0 and 1 pick the dates of a fold; counts make the sample of a bootstrap by date, which is the same as the
    sum over `GramStatistics.take`.

    Parameters
    ----------
    gram : GramStatistics
        The first of its regressors is a column of ones.
    date_weights : numpy.ndarray
        (sample, date).

    Returns
    -------
    Moments
        (sample, 1, ...).
    """
    size = len(gram.chars)
    zz = (date_weights @ gram.zz.reshape(len(gram.dates), -1)).reshape(-1, 1, size, size)
    return Moments(zz, (date_weights @ gram.zr)[:, None], (date_weights @ gram.rr)[:, None])


def ticker_moments(
    design: FloatArray, returns: FloatArray, known: npt.NDArray[np.bool_], date_weights: FloatArray
) -> Moments:
    """Sum over weighted dates, for one regression per ticker, each over its own history.

    Parameters
    ----------
    design : numpy.ndarray
        (date, 1 + k) a column of ones and the factors, finite.
    returns : numpy.ndarray
        (date, ticker), 0 where not ``known``.
    known : numpy.ndarray
        (date, ticker) which returns enter.
    date_weights : numpy.ndarray
        (sample, date).

    Returns
    -------
    Moments
        (sample, ticker, ...).
    """
    n_dates, size = design.shape
    outer = (design[:, :, None] * design[:, None, :]).reshape(n_dates, -1)
    present, squares = known.astype(np.float64), np.square(returns)
    zz = np.empty((len(date_weights), returns.shape[1], size, size))
    zr = np.empty(zz.shape[:3])
    for sample, weight in enumerate(date_weights):
        np.matmul(present.T, weight[:, None] * outer, out=zz[sample].reshape(-1, size * size))
        np.matmul(returns.T, weight[:, None] * design, out=zr[sample])
    return Moments(zz, zr, date_weights @ squares)
