"""Portfolios that a covariance is judged by: those it makes itself, and those that know nothing of it.

Here belong weights as arrays of one date. An optimiser looks for what a covariance under-forecasts, so its own
portfolios are the hardest test; random ones say whether it is right on average. Portfolios of a cube belong in
`models.portfolios`, what became of these in `protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import Float64Array
from models.evaluation.covariances import Covariance, FactorForm
from schemas.errors import ConfigError, ModelError

_GAP = 1e-13
"""Duality gap, as a share of the variance, at which a long-only portfolio is taken for the minimum."""
_MOST_STEPS = 100


def minimum_variance(covariance: Covariance) -> Float64Array:
    """Weights S^-1 1 / (1'S^-1 1) of minimum variance that sum to 1, (n,)."""
    inverse = covariance.solve(np.ones((covariance.n_stocks, 1)))[:, 0]
    weights: Float64Array = inverse / inverse.sum()
    return weights


def random_alpha(covariance: Covariance, alphas: Float64Array) -> Float64Array:
    """Optimal portfolios S^-1 a (p, n) of alphas (p, n), of gross weight 1."""
    return _gross_one(covariance.solve(alphas.T).T)


def random_long_short(draws: Float64Array) -> Float64Array:
    """Random portfolios (p, n) from independent draws: demeaned, gross weight 1."""
    return _gross_one(draws - draws.mean(axis=1, keepdims=True))


def group_portfolios(groups: Sequence[object]) -> tuple[list[str], Float64Array]:
    """Equally weighted portfolios (g, n) of the stocks of each group, with the names of the groups, sorted."""
    names = sorted({str(group) for group in groups})
    member = np.array([[str(group) == name for group in groups] for name in names], dtype=np.float64)
    weights: Float64Array = member / member.sum(axis=1, keepdims=True)
    return names, weights


def factor_portfolios(covariance: FactorForm) -> Float64Array:
    """Portfolios (K, n) that earn the factor returns: rows of (X'D^-1 X)^-1 X'D^-1, of gross weight 1.

    Where loadings are collinear, the pseudo-inverse is taken; a factor that nobody is exposed to holds nothing.
    """
    scaled = covariance.loadings / covariance.scale[:, None]
    return _gross_one(np.linalg.pinv(scaled) / covariance.scale)


def rank_buckets(n_stocks: int) -> dict[str, tuple[int, int]]:
    """Ranks, from 1 and both included, in which eigenportfolios are judged together; empty ones are left out."""
    last = max(n_stocks - 20, 1)
    edges = ((1, 1), (2, 5), (6, 20), (21, 60), (61, 200))
    found = {f"{first}-{end}" if end > first else f"{first}": (first, min(end, last)) for first, end in edges}
    found |= {"201-": (201, last), "last 20": (last + 1, n_stocks)}
    return {name: (first, end) for name, (first, end) in found.items() if 1 <= first <= end}


def eigenportfolios(covariance: Covariance, draws: Float64Array) -> dict[str, Float64Array]:
    """Eigenportfolios of a covariance by bucket of their rank.

    With u an eigenvector of S whitened by its scale s, the portfolio u / s is uncorrelated with the others and has the
    eigenvalue as its variance; it is scaled to gross weight 1. Beyond its K factors a factor form gives every direction
    the same variance, so it does not order them: there, a bucket holds random orthonormal directions of the complement
    instead, at most as many as it has ranks.

    Parameters
    ----------
    covariance : Covariance
        Of n stocks.
    draws : numpy.ndarray
        (m, n) independent normals that span the random directions; every bucket beyond the factors takes its share.

    Returns
    -------
    dict
        Name of the bucket (`rank_buckets`) to weights (p, n).
    """
    vectors = covariance.eigen()[1].T
    n_ranked = len(vectors)
    loose = draws - (draws @ vectors.T) @ vectors
    spare = np.linalg.qr(loose[: covariance.n_stocks - n_ranked].T)[0].T
    buckets = rank_buckets(covariance.n_stocks)
    wanted = {name: end - max(first - 1, n_ranked) for name, (first, end) in buckets.items()}
    sharing = max(sum(count > 0 for count in wanted.values()), 1)
    found, taken = {}, 0
    for name, (first, end) in buckets.items():
        count = min(max(wanted[name], 0), len(spare) // sharing)
        chosen = np.concatenate([vectors[first - 1 : min(end, n_ranked)], spare[taken : taken + count]])
        taken += count
        if len(chosen):
            found[name] = _gross_one(chosen / covariance.scale)
    return found


def turnover(before: Float64Array, after: Float64Array) -> float:
    """One-way turnover between two portfolios of the same stocks: half the sum of absolute changes of weight."""
    return float(np.abs(after - before).sum() / 2.0)


def long_only_minimum_variance(
    covariance: Covariance, cap: float = 0.02, tilt: Float64Array | None = None
) -> Float64Array:
    """Weights of minimum variance that sum to 1 and lie between 0 and a cap; with a tilt a, of maximum a'w - w'Sw / 2.

    A primal-dual interior point method (Mehrotra 1992) for min w'Sw / 2 - a'w, 1'w = 1, 0 <= w <= c: every step solves
    with S plus a diagonal, which the factor form does in n K^2. About twenty steps, whatever is bound.

    Parameters
    ----------
    covariance : Covariance
        Of n stocks.
    cap : float
        Largest weight of a name, above 1 / n.
    tilt : numpy.ndarray, optional
        a (n,), expected returns over a risk aversion.

    Returns
    -------
    numpy.ndarray
        (n,), which miss the optimum by at most 1e-13 of their variance, or by rounding.

    Raises
    ------
    ConfigError
        If the cap leaves no choice.
    ModelError
        If the method does not converge.
    """
    n = covariance.n_stocks
    if cap * n <= 1.0:
        raise ConfigError(f"A cap of {cap:g} leaves nothing to choose among {n} stocks; give one above {1.0 / n:.4g}.")
    size = float(covariance.diagonal.mean()) / n
    w, below, above = np.full(n, 1.0 / n), np.full(n, size), np.full(n, size)
    level, wanted = 0.0, np.zeros(n) if tilt is None else tilt
    for _ in range(_MOST_STEPS):
        room = cap - w
        gap = float(w @ below + room @ above)
        slope = covariance.times(w[:, None])[:, 0]
        stationarity = slope - wanted - level - below + above
        if gap <= _GAP * float(w @ slope) and np.abs(stationarity).max() <= 1e-9 * size * n:
            found: Float64Array = np.clip(w / w.sum(), 0.0, cap)
            return found
        system = covariance.plus_diagonal(below / w + above / room)
        ones = system.solve(np.ones((n, 1)))[:, 0]
        state = (w, room, below, above)
        residual = (stationarity, 1.0 - float(w.sum()), system, ones)
        step = _newton(state, residual, -w * below, -room * above)
        reach = _reach(state, step)
        trial = [part + reach * move for part, move in zip(state, step[:4], strict=True)]
        predicted = float(trial[0] @ trial[2] + trial[1] @ trial[3])
        centre = (predicted / gap) ** 3 * gap / (2 * n)
        move = _newton(
            state, residual, centre - w * below - step[0] * step[2], centre - room * above - step[1] * step[3]
        )
        reach = 0.995 * _reach(state, move)
        w, below, above = w + reach * move[0], below + reach * move[2], above + reach * move[3]
        level += reach * float(move[4])
    raise ModelError(f"The long-only portfolio of {n} stocks did not converge in {_MOST_STEPS} steps.")


_State = tuple[Float64Array, Float64Array, Float64Array, Float64Array]


def _newton(
    state: _State,
    residual: tuple[Float64Array, float, Covariance, Float64Array],
    lower: Float64Array,
    upper: Float64Array,
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array, float]:
    """Solve for the changes of w, c - w, both multipliers and the level, given the wanted complementarities."""
    w, room, below, above = state
    stationarity, missing, system, ones = residual
    right = -stationarity + lower / w - upper / room
    base = system.solve(right[:, None])[:, 0]
    level = (missing - float(base.sum())) / float(ones.sum())
    dw = base + level * ones
    return dw, -dw, (lower - below * dw) / w, (upper + above * dw) / room, level


def _reach(state: _State, step: tuple[Float64Array, Float64Array, Float64Array, Float64Array, float]) -> float:
    """Return the longest step, at most 1, that leaves weights, room and multipliers at least zero."""
    least = min(float((move / part).min()) for part, move in zip(state, step[:4], strict=True))
    return min(1.0, -1.0 / least) if least < 0.0 else 1.0


def _gross_one(weights: Float64Array) -> Float64Array:
    gross = np.abs(weights).sum(axis=1, keepdims=True)
    scaled: Float64Array = weights / np.where(gross > 0.0, gross, 1.0)
    return scaled
