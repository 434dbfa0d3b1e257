"""Average Oracle: eigenvalues of Omega as eigenportfolios realised them, on average over the past.

Here belongs the stage's recursion. Bongiorno, Challet and Loeper (2023), Filtering time-dependent covariance matrices
using time-independent eigenvalues: the eigenvalues that a portfolio meets are not those of the sample but the variances
of its eigenvectors in the dates that follow, and their shape by rank hardly changes. Shapes are shares of the trace, so
that the level remains that of the present. It turns with the factors.
"""

from __future__ import annotations

import numpy as np

from models.arrays import Float64Array, NamedArrays
from schemas.risk import OracleSpec


def start(n_factors: int) -> NamedArrays:
    """Return the state before the first horizon."""
    return {
        "oracle_vectors": np.zeros((n_factors, n_factors)),
        "oracle_squares": np.zeros(n_factors),
        "oracle_dates": np.zeros((), dtype=np.int64),
        "oracle_curve": np.zeros(n_factors),
        "oracle_mass": np.zeros(()),
    }


def step(spec: OracleSpec, state: NamedArrays, deviations: Float64Array, omega: Float64Array) -> NamedArrays:
    """Return the state after one more date.

    Parameters
    ----------
    spec : OracleSpec
    state : dict[str, numpy.ndarray]
        From `start` or `step`.
    deviations : numpy.ndarray
        (factor,) returns less their mean; a date that lacks one is left out.
    omega : numpy.ndarray
        (factor, factor_) as estimated after the date: where a horizon ends its eigenportfolios are followed next.
    """
    changed = dict(state)
    following = bool(state["oracle_vectors"].any())
    if following and np.isfinite(deviations).all():
        changed["oracle_squares"] = state["oracle_squares"] + np.square(deviations @ state["oracle_vectors"])
        changed["oracle_dates"] = np.asarray(state["oracle_dates"] + 1)
    if following and changed["oracle_dates"] < spec.horizon:
        return changed
    realised = changed["oracle_squares"]
    if realised.sum() > 0.0:
        decay = 1.0 if spec.halflife is None else 0.5 ** (1.0 / spec.halflife)
        mass = decay * state["oracle_mass"] + 1.0
        curve = state["oracle_curve"]
        changed["oracle_curve"] = curve + (realised / realised.sum() - curve) / mass
        changed["oracle_mass"] = np.asarray(mass)
    changed["oracle_vectors"] = np.linalg.eigh(omega)[1]
    changed["oracle_squares"] = np.zeros_like(realised)
    changed["oracle_dates"] = np.zeros((), dtype=np.int64)
    return changed


def filtered(spec: OracleSpec, state: NamedArrays, omega: Float64Array) -> Float64Array:
    """Return Omega with the average shape of realised eigenvalues, its own shape counting ``prior`` horizons."""
    values, vectors = np.linalg.eigh(omega)
    weight = spec.prior + float(state["oracle_mass"])
    if not weight:
        return omega
    total = values.sum()
    shape = (spec.prior * values / total + state["oracle_mass"] * state["oracle_curve"]) / weight
    changed: Float64Array = (vectors * (shape * total)) @ vectors.T
    return 0.5 * (changed + changed.T)
