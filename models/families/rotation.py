"""Rotations of latent factors, which are identified only up to one.

Here belongs the algebra of rotations alone: what is a rotation, and which one brings two sets of factors
closest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import FloatArray
from schemas.errors import ConfigError, DataError, ModelError


def align(factor_returns: FloatArray, reference: FloatArray) -> FloatArray:
    """Rotation R that brings ``factor_returns @ R`` closest to the reference: min ||F R - G||_F, R'R = I.

    The orthogonal Procrustes problem, R = U V' with U S V' the singular value decomposition of F'G
    (Schoenemann 1966), over the dates on which both are finite. Signs and order of the factors are thereby
    kept from one fit to the next. A factor that is the same in both on all these dates, as an observed one beside
    latent ones is, stays as it is: only the others are turned.

    Parameters
    ----------
    factor_returns, reference : numpy.ndarray
        (date, factor) on the same dates.

    Returns
    -------
    numpy.ndarray
        (factor, factor) to be given to `FactorModel.rotate`.

    Raises
    ------
    DataError
        If shapes differ.
    ModelError
        If fewer common finite dates are left than there are factors.
    """
    if factor_returns.shape != reference.shape or factor_returns.ndim != 2:
        raise DataError(f"Factors to align need one shape (date, factor): {factor_returns.shape}, {reference.shape}.")
    common = np.isfinite(factor_returns).all(axis=1) & np.isfinite(reference).all(axis=1)
    n_common, n_factors = int(common.sum()), factor_returns.shape[1]
    if n_common < n_factors:
        raise ModelError(
            f"Aligning {n_factors} factors needs at least {n_factors} common dates; there are {n_common}. "
            "Give a longer overlap."
        )
    one, other = factor_returns[common].astype(np.float64), reference[common].astype(np.float64)
    turned = np.flatnonzero((one != other).any(axis=0))
    left, _, right = np.linalg.svd(one[:, turned].T @ other[:, turned])
    rotation: FloatArray = np.eye(n_factors)
    rotation[np.ix_(turned, turned)] = left @ right
    return rotation


def check_rotation(rotation: FloatArray, n_factors: int, blocks: Sequence[slice] | None = None) -> FloatArray:
    """Return the rotation in float64.

    Parameters
    ----------
    rotation : numpy.ndarray
        (factor, factor)
    n_factors : int
    blocks : sequence of slice, optional
        Factors that may be turned among themselves; all others stay as they are. Default: all of them.

    Raises
    ------
    ConfigError
        If it is not an orthogonal (factor, factor) matrix, or turns more than the blocks.
    """
    matrix = np.asarray(rotation, dtype=np.float64)
    if matrix.shape != (n_factors, n_factors):
        raise ConfigError(f"A rotation of {n_factors} factors is {n_factors} x {n_factors}, not {matrix.shape}.")
    if not np.allclose(matrix.T @ matrix, np.eye(n_factors), atol=1e-8):
        raise ConfigError("A rotation must be orthogonal (R'R = I); this one would also stretch the factors.")
    beside = matrix.copy()
    for block in (slice(None),) if blocks is None else blocks:
        beside[block, block] = np.eye(n_factors)[block, block]
    if not np.array_equal(beside, np.eye(n_factors)):
        raise ConfigError("A rotation may not mix given factors or those of different models: turn each set by itself.")
    return matrix
