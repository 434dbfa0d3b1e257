"""Resampling of series whose neighbours depend on each other.

Here belong the positions that a bootstrap draws, and nothing that is made of them.
"""

from __future__ import annotations

import numpy as np

from models.arrays import IntArray
from schemas.errors import ConfigError


def stationary_bootstrap(n_periods: int, mean_block: float, n_draws: int, seed: int) -> IntArray:
    """Positions of the stationary bootstrap: blocks of geometric length, from random places, on a circle.

    Politis and Romano (1994), The stationary bootstrap. The resampled series is stationary, given the sample, whatever
    the length of blocks.

    Parameters
    ----------
    n_periods : int
        Length T of the series.
    mean_block : float
        Expected length of a block, at least 1; 1 is the independent bootstrap.
    n_draws : int
        Number of resampled series.
    seed : int
        Of the generator: the same gives the same draws.

    Returns
    -------
    numpy.ndarray
        (n_draws, T) int64.

    Raises
    ------
    ConfigError
        If there is no period or the blocks are shorter than one.
    """
    if n_periods < 1 or mean_block < 1.0:
        raise ConfigError(f"A bootstrap of {n_periods} periods in blocks of {mean_block:g} draws nothing.")
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n_periods, size=(n_draws, n_periods))
    fresh = rng.random((n_draws, n_periods)) < 1.0 / mean_block
    fresh[:, 0] = True
    origin = np.maximum.accumulate(np.where(fresh, np.arange(n_periods), 0), axis=1)
    positions: IntArray = (np.take_along_axis(starts, origin, axis=1) + np.arange(n_periods) - origin) % n_periods
    return positions
