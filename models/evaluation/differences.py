"""How far two sets of numbers lie apart: entry by entry, and as covariances of stocks.

Here belongs arithmetic on arrays whose axes are matched already. Matching versions belongs in `matching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arrays import Float64Array


@dataclass(frozen=True)
class Spread:
    """Sums from which the distance of two arrays follows; those of parts add up.

    Attributes
    ----------
    compared, unmatched : int
        Entries known in both, and in one of the two only.
    maximum : float
        Largest absolute difference.
    squares, scale : float
        Sum of squared differences, and of squares of the first array over the same entries.
    identical : bool
        Whether they are the same bit for bit: NaN equals NaN, 0.0 does not equal -0.0.
    """

    compared: int = 0
    unmatched: int = 0
    maximum: float = 0.0
    squares: float = 0.0
    scale: float = 0.0
    identical: bool = True

    def __add__(self, other: Spread) -> Spread:
        return Spread(
            self.compared + other.compared,
            self.unmatched + other.unmatched,
            max(self.maximum, other.maximum),
            self.squares + other.squares,
            self.scale + other.scale,
            self.identical and other.identical,
        )

    @property
    def rms(self) -> float | None:
        """Root mean square of the differences; None if nothing was compared."""
        return float(np.sqrt(self.squares / self.compared)) if self.compared else None

    @property
    def relative(self) -> float | None:
        """Norm of the differences over that of the first array; None if that is zero."""
        return float(np.sqrt(self.squares / self.scale)) if self.scale > 0.0 else None


def spread(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Spread:
    """Compare two arrays of one shape; what is NaN in both counts as nothing."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    apart = np.abs(first[known] - second[known])
    return Spread(
        compared=int(known.sum()),
        unmatched=int((np.isfinite(first) != np.isfinite(second)).sum()),
        maximum=float(apart.max(initial=0.0)),
        squares=float(np.sum(apart**2)),
        scale=float(np.sum(first[known] ** 2)),
        identical=one.dtype == other.dtype and one.tobytes() == other.tobytes(),
    )


def covariance_distance(
    loadings: tuple[Float64Array, Float64Array], omegas: tuple[Float64Array, Float64Array]
) -> Float64Array:
    """Relative distance ||A - B|| / ||A|| (Frobenius) of the systematic covariances X Omega X' of two models.

    It does not depend on how factors are rotated, scaled or counted. With [X1 X2] = Q R, the norm of
    X1 Omega1 X1' - X2 Omega2 X2' is that of R diag(Omega1, -Omega2) R': no stock x stock matrix is formed.

    Parameters
    ----------
    loadings : (numpy.ndarray, numpy.ndarray)
        (date, ticker, factor) on the same dates and tickers; the numbers of factors may differ. Stocks that one does
        not cover are left out.
    omegas : (numpy.ndarray, numpy.ndarray)
        (date, factor, factor).

    Returns
    -------
    numpy.ndarray
        (date); NaN where an Omega is not known or no stock is covered by both.
    """
    one, other = (part.astype(np.float64) for part in loadings)
    covered = np.isfinite(one).all(axis=2, keepdims=True) & np.isfinite(other).all(axis=2, keepdims=True)
    stacked = np.concatenate([np.where(covered, one, 0.0), np.where(covered, other, 0.0)], axis=2)
    triangle: Float64Array = np.asarray(np.linalg.qr(stacked, mode="r"))
    first, second = triangle[..., : one.shape[2]], triangle[..., one.shape[2] :]
    mine = first @ omegas[0] @ first.swapaxes(1, 2)
    theirs = second @ omegas[1] @ second.swapaxes(1, 2)
    size = np.linalg.norm(mine, axis=(1, 2))
    distance: Float64Array = np.linalg.norm(mine - theirs, axis=(1, 2)) / np.where(size > 0.0, size, np.nan)
    return distance
