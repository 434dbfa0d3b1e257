"""Co-skewness of residuals: the portfolio in which three different stocks are most skewed together, and its test.

Here belongs what follows from residuals without gaps alone. How residuals come about, and what is made of the factors,
belongs in `model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.covariance import ledoit_wolf_shrinkage

from models.arrays import Float64Array
from models.families.pca.matrices import spans
from models.inference.regression import automatic_lags, newey_west_covariance

_MOST_ROUNDS = 500
_SETTLED = 1e-12  # largest change of a weight over a round
_CUT = 8.0  # of two standard deviations, cubed: what the test takes of one date at most


@dataclass(frozen=True, eq=False)
class Skewed:
    """Factors of residuals that their third moments show.

    Attributes
    ----------
    loadings : numpy.ndarray
        (ticker, factor) of unit length, not orthogonal; along each the third moments are positive.
    p_values : numpy.ndarray
        (candidate,) of no co-skewness, of every factor that was looked for, in order.
    """

    loadings: Float64Array
    p_values: Float64Array


class Triples:
    """Third moments of (date, ticker) columns over triples of different stocks, applied to weights and never formed.

    With x_i = w_i e_i, p = sum_i x_i and q = sum_i x_i^2, the sum over triples of different stocks of x_i x_j x_k is
    p^3 - 3 p q + 2 sum_i x_i^3 at each date (Newton's identities), and its slope in w_i is 3 e_i ((p - x_i)^2 - (q -
    x_i^2)): the skewness of a stock by itself, and that of pairs, such as a stock with its own volatility, are left
    out, and so cannot drown what is common.

    Parameters
    ----------
    values : numpy.ndarray
        (date, ticker), each column about zero.
    """

    def __init__(self, values: Float64Array) -> None:
        self.values = values
        self._squares = np.square(values)
        self._own: Float64Array = (self._squares * values).mean(axis=0)

    def along(self, weights: Float64Array) -> Float64Array:
        """(ticker,) mean over dates of e_i ((p - x_i)^2 - (q - x_i^2)), a third of the slope of the sum."""
        x = self.values @ weights
        common = np.square(x) - self._squares @ np.square(weights)
        found = self.values.T @ common - 2.0 * weights * (self._squares.T @ x)
        slope: Float64Array = found / len(x) + 2.0 * np.square(weights) * self._own
        return slope

    def by_date(self, weights: Float64Array) -> Float64Array:
        """(date,) the sum of x_i x_j x_k over triples, less what the estimated means of the columns add to its mean.

        That is the mean slope of the sum in e_i, times e_i: with it the mean has the error that its dates show.
        """
        x = self.values * weights
        p, square = x.sum(axis=1), np.square(x)
        q = square.sum(axis=1)
        total = p**3 - 3.0 * p * q + 2.0 * (square * x).sum(axis=1)
        slope = (np.square(p) - q).mean() - 2.0 * (p @ x) / len(x) + 2.0 * square.mean(axis=0)
        moved: Float64Array = total - 3.0 * x @ slope
        return moved

    def start(self, others: Float64Array) -> Float64Array:
        """(ticker,) leading eigenvector of the co-skewness matrix, orthogonal to given ones (ticker, factor).

        The matrix is the sum over pairs of stocks j, k that differ of M_ijk M_ljk = E'(G o G - P P')E / T^2, with G = E
        E' and P the squares of E (date, ticker). Products of a date with itself, the diagonal of G, are left out: they
        are what skewness of zero gives on average, and of size N / T.
        """
        squares = self._squares
        matrix = np.zeros((squares.shape[1], squares.shape[1]))
        for span in spans(len(squares), len(squares)):
            pairs = np.square(self.values[span] @ self.values.T) - squares[span] @ squares.T
            pairs[np.arange(len(pairs)), np.arange(span.start, span.start + len(pairs))] = 0.0
            matrix += self.values[span].T @ (pairs @ self.values)
        matrix = _without(_without((matrix + matrix.T) / 2.0, others).T, others)
        vector: Float64Array = np.linalg.eigh(matrix)[1][:, -1]
        return vector

    def most_skewed(self, others: Float64Array) -> Float64Array:
        """(ticker,) unit weights of largest co-skewness, orthogonal to given ones, by power iterations.

        Each round adds the weights to their slope, so that the co-skewness rises (Kolda and Mayo 2011, Shifted power
        method for computing tensor eigenpairs).
        """
        weights = self.start(others)
        for _ in range(_MOST_ROUNDS):
            slope = _without(self.along(weights), others)
            value = float(weights @ slope)
            if value < 0.0:
                weights, value = -weights, -value
            longer = slope + value * weights
            length = float(np.linalg.norm(longer))
            if length == 0.0:
                break
            before, weights = weights, longer / length
            if np.abs(weights - before).max() < _SETTLED:
                break
        return weights


def skewed_factors(residuals: Float64Array, most: int, significance: float | None) -> Skewed:
    """Find the factors of (date, ticker) residuals in their third moments, one after the other.

    Residuals are whitened by their covariance, shrunk as Ledoit and Wolf (2004) say, so that correlation among
    neighbours is no factor. In the whitened residuals z the direction w is looked for in which triples of different
    stocks are most skewed, orthogonal to the directions before. Loadings are mean(e_i (w'z)^2) over triples: third
    moments once more, to which residuals that are correlated but not skewed add nothing.

    The test is out of sample: the direction that one half of the dates gives must be skewed in the other half. There
    the t-statistic of its mean co-skewness, of each date at most that of two standard deviations, has the errors of
    Newey and West. The p-value is twice the smaller one of the two halves (Bonferroni). If residuals are as likely as
    their negatives, the mean is zero: whitening does not know their signs.

    Parameters
    ----------
    residuals : numpy.ndarray
        (date, ticker) about zero; zero where missing.
    most : int
        Factors to look for.
    significance : float, optional
        Size of the test: the first factor beyond it ends the search. None to take ``most`` factors whatever it says.
    """
    white = _whitener(residuals)
    z = residuals @ white
    half = len(z) // 2
    whole, halves = Triples(z), (Triples(_centred(z[:half])), Triples(_centred(z[half:])))
    own = Triples(residuals)
    found, loadings, p_values = np.zeros((z.shape[1], 0)), [], []
    for _ in range(most):
        scores = [_t(held, of.most_skewed(found)) for of, held in (halves, halves[::-1])]
        p_values.append(min(1.0, 2.0 * float(norm.sf(max(scores)))))
        if significance is not None and p_values[-1] > significance:
            break
        weights = whole.most_skewed(found)
        slope = own.along(white @ weights)
        loadings.append(slope / np.linalg.norm(slope))
        found = np.column_stack([found, weights])
    shape = (z.shape[1], len(loadings))
    return Skewed(np.reshape(np.array(loadings).T, shape), np.array(p_values))


def _whitener(residuals: Float64Array) -> Float64Array:
    """(ticker, ticker) symmetric root of the inverse of the shrunk covariance."""
    covariance = residuals.T @ residuals / len(residuals)
    share = float(ledoit_wolf_shrinkage(residuals / np.sqrt(np.trace(covariance)), assume_centered=True))
    values, vectors = np.linalg.eigh(covariance)
    shrunk = (1.0 - share) * np.maximum(values, 0.0) + share * values.mean()
    root: Float64Array = (vectors / np.sqrt(shrunk)) @ vectors.T
    return root


def _t(held: Triples, weights: Float64Array) -> float:
    """t-statistic of the mean co-skewness of a direction that other dates gave."""
    most = _CUT * float((held.values @ weights).std()) ** 3
    skewed = np.clip(held.by_date(weights), -most, most)
    mean = float(skewed.mean())
    variance = float(newey_west_covariance((skewed - mean)[:, None], automatic_lags(len(skewed)))[0, 0])
    return mean / np.sqrt(variance) if variance > 0.0 else 0.0


def _centred(values: Float64Array) -> Float64Array:
    centred: Float64Array = values - values.mean(axis=0)
    return centred


def _without(values: Float64Array, others: Float64Array) -> Float64Array:
    """Take out of vectors (ticker, ...) what lies along orthonormal ones (ticker, factor)."""
    left: Float64Array = values - others @ (others.T @ values)
    return left
