"""The covariance of assets that a kernel implies, from kernel matrices alone.

Here belongs the kernel trick; no feature is ever formed. Features and the factors in them belong in `estimation`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from models.arrays import Float64Array, FloatArray
from schemas.errors import ModelError


def kernel_covariance(
    cross: Sequence[FloatArray], own: Sequence[FloatArray], returns: Sequence[FloatArray], ridge: float
) -> Float64Array:
    """Return Psi Omega Psi' (stock, stock) of the stocks of one date, where Omega is the covariance of psi's slopes.

    With a kernel k(c, d) = psi(c)'psi(d), the kernel ridge regression of the returns of date s on Psi_s = psi(C_s) has
    slopes b_s = Psi_s'(K_ss + z N_s I)^-1 r_s, and Omega = sum_s (b_s - b)(b_s - b)' / T is their covariance over the T
    dates. Neither needs to be formed, however many features psi has: the slopes act on the stocks of the
    date in question as Psi b_s = K_s (K_ss + z N_s I)^-1 r_s =: a_s, so that

        Psi Omega Psi' = sum_s (a_s - a)(a_s - a)' / T,

    which is positive semidefinite and of rank T - 1 at most.

    Parameters
    ----------
    cross : sequence of numpy.ndarray
        (stock, stock of s) kernel K_s between the stocks of the date in question and those of each past date s.
    own : sequence of numpy.ndarray
        (stock of s, stock of s) kernel K_ss among the stocks of each past date.
    returns : sequence of numpy.ndarray
        (stock of s,) returns of each past date, in decimals per period.
    ridge : float
        z, in units of the kernel; positive, so that every system can be solved.

    Returns
    -------
    numpy.ndarray
        (stock, stock) covariance in squared decimals per period.

    Raises
    ------
    ModelError
        If there are no dates, not one of each per date, or the ridge is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from models import kernel_covariance
    >>> one, two = np.array([[0.0], [1.0]]), np.array([[0.5], [1.5]])
    >>> past, returns = [one, two], [np.array([0.01, 0.02]), np.array([-0.01, 0.0])]
    >>> kernel_covariance([one @ c.T for c in past], [c @ c.T for c in past], returns, ridge=0.1).shape
    (2, 2)
    """
    if not (len(cross) == len(own) == len(returns) > 0 and ridge > 0.0):
        raise ModelError(
            f"The kernel's covariance needs cross, own and returns of the same dates, at least one, and a positive "
            f"ridge: there are {len(cross)}, {len(own)} and {len(returns)} dates, and ridge={ridge}."
        )
    fitted = []
    for between, among, r in zip(cross, own, returns, strict=True):
        system = among.astype(np.float64) + ridge * len(r) * np.eye(len(r))
        fitted.append(between @ scipy.linalg.solve(system, r.astype(np.float64), assume_a="pos"))
    moved = np.stack(fitted, axis=1)
    moved -= moved.mean(axis=1, keepdims=True)
    covariance: Float64Array = moved @ moved.T / len(returns)
    return covariance
