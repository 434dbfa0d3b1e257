"""Cross-validation along time: blocked, purged folds of dates, errors from cross-products, and the choice of a penalty.

Here belong the splits and the rules, which know dates and squared errors but no model. What is fitted on a fold
belongs in the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from models.arrays import BoolArray, FloatArray
from schemas.errors import ConfigError, ModelError

Rule = Literal["min", "one_se"]


@dataclass(frozen=True)
class BlockedFolds:
    """Consecutive blocks of dates, each tested by a fit on the dates that are far enough from it.

    Every date is tested once. Training leaves out ``purge`` dates on either side of the tested block, since
    labels or characteristics that overlap in time would leak over its borders, and ``embargo`` further dates after it,
    since what follows remembers it. Source: Lopez de Prado (2018), Advances in Financial Machine Learning, sections
    7.4.1 and 7.4.2. The splits work as ``cv`` of scikit-learn too, on rows that are dates, such as a panel.

    Parameters
    ----------
    n_folds : int
        Number of blocks, at least 2; their lengths differ by one date at most.
    purge, embargo : int
        Numbers of dates, not negative.

    Examples
    --------
    >>> from models import BlockedFolds
    >>> train, test = next(BlockedFolds(n_folds=3, purge=1).split(range(6)))
    >>> train.tolist(), test.tolist()
    ([3, 4, 5], [0, 1])
    """

    n_folds: int = 5
    purge: int = 1
    embargo: int = 0

    def __post_init__(self) -> None:
        if self.n_folds < 2:
            raise ConfigError(f"Cross-validation needs n_folds of at least 2, not {self.n_folds}.")
        if self.purge < 0 or self.embargo < 0:
            raise ConfigError(f"purge={self.purge} and embargo={self.embargo} are numbers of dates: 0 or more.")

    def masks(self, n_dates: int) -> tuple[BoolArray, BoolArray]:
        """Return which dates each fold trains on, and which it tests on, both as (fold, date).

        Raises
        ------
        ModelError
            If a fold would have nothing to train on.
        """
        position = np.arange(n_dates)
        edges = np.linspace(0, n_dates, self.n_folds + 1).round().astype(np.int64)
        start, stop = edges[:-1, None], edges[1:, None]
        test = (position >= start) & (position < stop)
        train = (position < start - self.purge) | (position >= stop + self.purge + self.embargo)
        if not (train.any(axis=1) & test.any(axis=1)).all():
            raise ModelError(
                f"{n_dates} dates are too few for n_folds={self.n_folds} with purge={self.purge} and "
                f"embargo={self.embargo}: a fold has nothing to train or to test on. Use fewer folds, or more dates."
            )
        return train, test

    def split(
        self,
        X: Any,
        y: Any = None,  # noqa: ARG002  # scikit-learn passes it
        groups: Any = None,  # noqa: ARG002  # scikit-learn passes it
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Positions of training and test dates, fold by fold; X is anything whose length is the number of dates."""
        for train, test in zip(*self.masks(len(X)), strict=True):
            yield np.flatnonzero(train), np.flatnonzero(test)

    def get_n_splits(
        self,
        X: Any = None,  # noqa: ARG002  # scikit-learn passes it
        y: Any = None,  # noqa: ARG002  # scikit-learn passes it
        groups: Any = None,  # noqa: ARG002  # scikit-learn passes it
    ) -> int:
        """Return the number of folds."""
        return self.n_folds


def squared_error(zz: FloatArray, zr: FloatArray, rr: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Weighted sum of squared errors (r - Z b)'W(r - Z b) of many coefficients, from cross-products alone.

    Parameters
    ----------
    zz, zr, rr : numpy.ndarray
        (..., k, k) Z'WZ, (..., k) Z'Wr and (...) r'Wr of the rows that are tested.
    coefficients : numpy.ndarray
        (..., penalty, k).

    Returns
    -------
    numpy.ndarray
        (..., penalty), not negative.
    """
    quadratic = ((coefficients @ zz) * coefficients).sum(axis=-1)
    linear = (coefficients @ zr[..., None])[..., 0]
    error: FloatArray = np.maximum(rr[..., None] - 2.0 * linear + quadratic, 0.0)
    return error


def average_error(fold_error: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean error over folds and its standard error, folds weighted by how much they test.

    With w the weights scaled to sum to one, the mean is sum_k w_k e_k and its standard error
    sqrt(sum_k w_k (e_k - mean)^2 / (K - 1)); with equal weights that is the sample deviation of the folds over
    sqrt(K). Source: Friedman, Hastie and Tibshirani (2010), as in ``glmnet``.

    Parameters
    ----------
    fold_error : numpy.ndarray
        (fold, ..., penalty) mean squared error of each fold.
    weight : numpy.ndarray
        (fold, ...) sum of weights tested; a fold with 0 does not count.

    Returns
    -------
    mean, stderr : numpy.ndarray
        (..., penalty); NaN where fewer than two folds count.
    """
    used = weight > 0.0
    count = used.sum(axis=0)
    total = weight.sum(axis=0)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=used)[..., None]
    error = np.where(used[..., None], fold_error, 0.0)
    mean = (share * error).sum(axis=0)
    spread = (share * np.square(error - mean)).sum(axis=0)
    freedom = np.where(count > 1, count - 1.0, np.nan)[..., None]
    return np.where(np.isnan(freedom), np.nan, mean), np.sqrt(spread / freedom)


def choose_penalty(error: FloatArray, stderr: FloatArray, rule: Rule) -> npt.NDArray[np.int64]:
    """Position of the chosen penalty on paths that run from the strongest penalty to the weakest.

    "min" takes the least error, "one_se" the strongest penalty whose error is within one standard error of the least,
    taken at the least: Breiman, Friedman, Olshen and Stone (1984), section 3.4.3. Of equal errors the strongest
    penalty is taken.

    Parameters
    ----------
    error, stderr : numpy.ndarray
        (..., penalty).

    Returns
    -------
    numpy.ndarray
        (...); -1 where the errors are NaN.

    Raises
    ------
    ConfigError
        If the rule is unknown.
    """
    if rule not in get_args(Rule):
        raise ConfigError(f"rule '{rule}' is none of {', '.join(get_args(Rule))}.")
    known: BoolArray = np.logical_and.reduce(np.isfinite(error), axis=-1)
    error = np.where(known[..., None], error, 0.0)
    least = error.argmin(axis=-1)
    if rule == "one_se":
        bound = np.take_along_axis(error + np.where(known[..., None], stderr, 0.0), least[..., None], axis=-1)
        least = (error <= bound).argmax(axis=-1)
    return np.where(known, least, -1)
