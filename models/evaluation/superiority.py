"""Which of many models are the best? Tests of losses on the same dates.

Here belongs the model confidence set. The test of two series of losses belongs in `models.inference.diebold_mariano`.
Which losses is the caller's choice: QLIKE of the same portfolios, minus the log-likelihood of cross-sections, or
squared returns of each model's own minimum-variance portfolio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import BoolArray, Float64Array
from models.evaluation.resampling import stationary_bootstrap
from schemas.errors import DataError


@dataclass(frozen=True, eq=False)
class ConfidenceSet:
    """The models among which the best one is, with a given confidence.

    Attributes
    ----------
    p_values : numpy.ndarray
        (model,) of the model confidence set; the last one left has 1.
    included : numpy.ndarray
        (model,) whether the p-value is at least 1 - confidence.
    """

    p_values: Float64Array
    included: BoolArray


def model_confidence_set(
    losses: Float64Array,
    *,
    confidence: float = 0.9,
    mean_block: float = 21.0,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> ConfidenceSet:
    """Drop the worst model as long as equal losses of those left are rejected (Hansen, Lunde and Nason 2011).

    The statistic is T_max: of each model the mean loss less that of all that are left, over its bootstrap standard
    error, and of these the largest, which also says whom to drop. A model's p-value is the largest of the tests up to
    the one that drops it.

    Parameters
    ----------
    losses : numpy.ndarray
        (date, model), known all, in order of time; lower is better.
    confidence : float
        Probability that the set contains the best model.
    mean_block : float
        Dates in a block of the stationary bootstrap, on average.
    n_bootstrap, seed : int
        Draws, and the seed of their generator.

    Raises
    ------
    DataError
        If there is no model, fewer than two dates, or a loss that is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from models import model_confidence_set
    >>> losses = np.random.default_rng(0).normal([0.0, 0.0, 1.0], 1.0, (200, 3))
    >>> model_confidence_set(losses, n_bootstrap=200).included.tolist()
    [True, True, False]
    """
    n_dates, n_models = losses.shape
    if n_models < 1 or n_dates < 2 or not np.isfinite(losses).all():
        raise DataError(f"{n_dates} dates of {n_models} models: a set needs two dates or more, and every loss.")
    centred = losses - losses.mean(axis=1, keepdims=True)  # what all models lose alike cancels in any case
    means = centred.mean(axis=0)
    draws = stationary_bootstrap(n_dates, min(mean_block, n_dates), n_bootstrap, seed)
    resampled = np.stack([centred[draw].mean(axis=0) for draw in draws]) - means
    left, largest, p_values = np.arange(n_models), 0.0, np.ones(n_models)
    while len(left) > 1:
        apart = means[left] - means[left].mean()
        noise = resampled[:, left] - resampled[:, left].mean(axis=1, keepdims=True)
        error = np.sqrt(np.square(noise).mean(axis=0))
        usable = error > 1e-12 * np.abs(means).max()
        scale = np.where(usable, error, np.inf)
        ratio = apart / scale
        chance = float(np.mean((noise / scale).max(axis=1) >= ratio.max()))
        largest = max(largest, chance)
        worst = int(ratio.argmax())
        p_values[left[worst]] = largest
        left = np.delete(left, worst)
    return ConfidenceSet(p_values, np.asarray(p_values >= 1.0 - confidence, dtype=np.bool_))
