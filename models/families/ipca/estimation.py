"""From moments to an estimate: starts, the best of them, and the normalisation.

Here belongs what lies between the iteration and the model. What a fitted model says of a panel belongs in `model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import FloatArray
from models.families.ipca.iteration import Solution, Steps, iterate
from models.families.ipca.steps import Moments, rank_message
from models.statistics.gram import RANK_TOLERANCE
from schemas.errors import ModelError


class Normalised(NamedTuple):
    """An estimate in the coordinates in which it is published.

    Attributes
    ----------
    coefficients : numpy.ndarray
        (char, K + M).
    means : numpy.ndarray
        (K + M,) means of latent factors and given series over the dates that were kept.
    n_dropped : int
        Dates with stocks that were not kept.
    """

    coefficients: FloatArray
    means: FloatArray
    n_dropped: int


def given_series(
    dates: pd.DatetimeIndex, observed: xr.DataArray | None, names: Sequence[str], *, intercept: bool
) -> FloatArray:
    """(date, M) observed factors, and last the ones of an intercept; NaN where unknown.

    Raises
    ------
    ModelError
        If one of the names is not among the observed factors.
    """
    columns = []
    if names:
        known = [] if observed is None else [str(name) for name in observed["observed_factor"].values]
        missing = [name for name in names if name not in known]
        if observed is None or missing:
            raise ModelError(f"IPCA needs the observed factors {[*names]}; of these {missing} are not given.")
        wanted = observed.sel(observed_factor=[*names]).transpose("date", "observed_factor")
        columns.append(wanted.reindex(date=dates).values.astype(np.float64))
    if intercept:
        columns.append(np.ones((len(dates), 1)))
    return np.concatenate(columns, axis=1) if columns else np.empty((len(dates), 0))


def solve(
    steps: Steps, first: FloatArray, *, n_starts: int, max_iter: int, tol: float, memory: int
) -> tuple[Solution, list[float]]:
    """Iterate from the first start and from random ones; return what explains most, and what each explains."""
    n_chars, k = len(first), steps.n_factors
    starts = [first]
    for seed in range(1, n_starts):
        latent = np.random.default_rng(seed).standard_normal((n_chars, k))
        starts.append(np.concatenate([latent, np.zeros((n_chars, first.shape[1] - k))], axis=1))
    solutions = [iterate(steps, start, max_iter=max_iter, tol=tol, memory=memory) for start in starts]
    return max(solutions, key=lambda solution: solution.explained), [each.explained for each in solutions]


def normalise(moments: Moments, coefficients: FloatArray) -> Normalised:
    """Turn latent factors so that F'F / T is diagonal and descending, and their means positive.

    Raises
    ------
    ModelError
        If the factors do not have full rank.
    """
    k = moments.n_factors
    regressors, kept, _ = moments.project(coefficients)
    rotation = _canonical_rotation(regressors[kept, :k])
    means = regressors[kept].mean(axis=0)
    means[:k] = means[:k] @ rotation
    turned = np.concatenate([coefficients[:, :k] @ rotation, coefficients[:, k:]], axis=1)
    return Normalised(turned, means, int((moments.n > 0).sum() - kept.sum()))


def _canonical_rotation(factors: FloatArray) -> FloatArray:
    if not factors.shape[1]:
        return np.empty((0, 0))
    values, rotation = np.linalg.eigh(factors.T @ factors / len(factors))
    if values[0] <= RANK_TOLERANCE * values[-1]:
        raise ModelError(rank_message(factors.shape[1]))
    rotation = rotation[:, ::-1]
    sign = np.where(factors.mean(axis=0) @ rotation < 0.0, -1.0, 1.0)
    return np.asarray(rotation * sign)
