"""Positive definiteness: what is mended, and by how much.

Here belongs the one rule by which a covariance matrix is repaired. What is positive definite by construction passes
unchanged, bit for bit.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Float64Array


def repaired(covariance: Float64Array, floor: float) -> tuple[Float64Array, float]:
    """Raise eigenvalues that are too small; also the share of the trace that this added, 0 if nothing was changed.

    Parameters
    ----------
    covariance : numpy.ndarray
        (K, K) symmetric.
    floor : float
        Least eigenvalue as a share of their mean.
    """
    least = floor * max(float(np.trace(covariance)), 0.0) / len(covariance)
    try:  # it succeeds if no eigenvalue is below, and takes a tenth of the time of looking at them
        np.linalg.cholesky(covariance - least * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        pass
    else:
        return covariance, 0.0
    values, vectors = np.linalg.eigh(covariance)
    raised = np.maximum(values, least)
    mended: Float64Array = (vectors * raised) @ vectors.T
    return 0.5 * (mended + mended.T), float((raised - values).sum() / np.trace(covariance))
