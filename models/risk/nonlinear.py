"""Variance of returns r = phi(X, f) + e that are not linear in the factors.

Here belongs what follows for portfolios from a given phi, Omega and specific variance. With r = X f + e all of it is
w'X Omega X'w + w'D w, which belongs in `models.risk.portfolio`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from models.arrays import Float64Array, FloatArray
from schemas.errors import ConfigError, DataError

Response = Callable[[torch.Tensor], torch.Tensor]
"""phi at fixed X: from factor returns (factor,) to returns of tickers (ticker,), by functions of torch."""

_CHUNK = 4096


def local_loadings(response: Response, at: xr.DataArray, tickers: xr.DataArray) -> xr.DataArray:
    """Return the Jacobian d phi / d f as (ticker, factor): the loadings of the linear model that is closest there.

    Parameters
    ----------
    response : callable
        phi.
    at : xarray.DataArray
        (factor,) where it is linearised, such as the mean of the factor returns.
    tickers : xarray.DataArray
        (ticker,) with the labels of what phi returns.

    Raises
    ------
    DataError
        If phi gives another number of returns, or none that is finite.

    Examples
    --------
    >>> import torch
    >>> import xarray as xr
    >>> from models import local_loadings
    >>> tickers = xr.DataArray(["A", "B"], {"ticker": ["A", "B"]}, ("ticker",))
    >>> at = xr.DataArray([0.1], {"factor": ["market"]}, ("factor",))
    >>> local_loadings(lambda f: torch.stack([f[0], f[0] ** 2]), at, tickers).values.round(4).tolist()
    [[1.0], [0.2]]
    """
    point = torch.as_tensor(np.asarray(at.values, dtype=np.float64))
    _checked(response(point), tickers.sizes["ticker"])
    jacobian = _finite(torch.func.jacfwd(response)(point).numpy(), "slopes")
    coords = {"ticker": tickers["ticker"], "factor": at["factor"]}
    return xr.DataArray(jacobian, coords, ("ticker", "factor"), name="loadings")


def nonlinear_risk(
    response: Response,
    omega: xr.DataArray,
    specific_variance: xr.DataArray,
    weights: xr.DataArray,
    *,
    mean: xr.DataArray | None = None,
    shocks: FloatArray | None = None,
    n_draws: int = 20_000,
    seed: int = 0,
) -> xr.Dataset:
    """Variance of portfolios of r = phi(X, f) + e: by local linearisation, to second order, and by simulation.

    With g the gradient and H the Hessian of w'phi at the mean of f, the linearised variance of the part that comes
    from factors is g'Omega g, that to second order g'Omega g + tr(H Omega H Omega) / 2 for normal f (delta-gamma;
    J.P. Morgan 1996, RiskMetrics technical document, ch. 6). Simulated is Var(w'phi(mean + L z)) with L L' = Omega
    over draws z that are turned and scaled to have exactly mean 0 and covariance I. So all three are the same for a
    linear phi, and for any other one the simulation error is that of the difference to the linear model alone.

    Parameters
    ----------
    response : callable
        phi at the X of one date; it is given factor returns in float64.
    omega : xarray.DataArray
        (factor, factor_) covariance of f, per period.
    specific_variance : xarray.DataArray
        (ticker,) Var(e), per period; its tickers are those that phi returns, in their order.
    weights : xarray.DataArray
        ([portfolio,] ticker), with the same tickers.
    mean : xarray.DataArray, optional
        (factor,) mean of f; zero if left out.
    shocks : numpy.ndarray, optional
        (draw, factor) from which z comes, such as past factor returns over their volatilities: the law of f then has
        their tails. Normal ones, with their mirror images, if left out.
    n_draws : int
        Number of normal draws.
    seed : int
        Of the normal draws.

    Returns
    -------
    xarray.Dataset
        ([portfolio]): ``linearised``, ``quadratic`` and ``simulated`` variance from factors; ``standard_error`` of
        ``simulated``; ``difference``, simulated less linearised; ``specific`` variance w'D w. Per period, in squared
        decimals. The variance of the portfolio is one of the first three and the specific one.

    Raises
    ------
    DataError
        If labels are not the same, Omega is not positive semi-definite, or phi gives what is not finite.
    ConfigError
        If there are fewer draws than factors need.

    Examples
    --------
    >>> import torch
    >>> import xarray as xr
    >>> from models import nonlinear_risk
    >>> from models.risk.example import example_risk
    >>> model = example_risk()
    >>> slopes = torch.tensor(model.loadings.values)
    >>> weights = model.labelled_weights([0.25, 0.25, 0.25, 0.25])
    >>> found = nonlinear_risk(lambda f: slopes @ f, model.omega, model.specific_variance, weights, n_draws=100)
    >>> round(float(found["linearised"]), 6)
    0.0004
    """
    tickers = specific_variance["ticker"]
    for what, other in (("weights", weights["ticker"]), ("Omega", omega["factor_"])):
        expected = tickers if what == "weights" else omega["factor"]
        if not np.array_equal(other.values, expected.values):
            raise DataError(f"the labels of {what} must be the same on both sides, in the same order")
    W = torch.as_tensor(np.atleast_2d(weights.transpose(..., "ticker").values.astype(np.float64)))
    root = _root(omega.values.astype(np.float64))
    size = len(root)
    centre = np.zeros(size) if mean is None else mean.sel(factor=omega["factor"]).values.astype(np.float64)
    point = torch.as_tensor(centre)
    _checked(response(point), tickers.sizes["ticker"])

    def held(factors: torch.Tensor) -> torch.Tensor:
        return W @ response(factors).double()

    g = _finite(torch.func.jacfwd(held)(point).numpy(), "slopes")
    H = _finite(torch.func.jacfwd(torch.func.jacfwd(held))(point).numpy(), "curvatures")
    linear = g @ root
    curved = root.T @ H @ root
    z = _standard(_normal(n_draws, size, seed) if shocks is None else np.asarray(shocks, dtype=np.float64), size)
    draws = torch.as_tensor(centre + z @ root.T)
    returns = _finite(torch.func.vmap(held, chunk_size=_CHUNK)(draws).numpy(), "returns")
    own = np.square(returns - returns.mean(axis=0))
    beyond = own - np.square(z @ linear.T)  # the mean of what is taken away is known exactly
    linearised = np.square(linear).sum(axis=1)
    simulated = own.mean(axis=0)
    values: dict[str, Float64Array] = {
        "linearised": linearised,
        "quadratic": linearised + 0.5 * np.square(curved).sum(axis=(1, 2)),
        "simulated": simulated,
        "standard_error": beyond.std(axis=0) / np.sqrt(len(z)),
        "difference": simulated - linearised,
        "specific": np.square(W.numpy()) @ specific_variance.values.astype(np.float64),
    }
    alone = "portfolio" not in weights.dims
    coords = {} if alone else {"portfolio": weights["portfolio"]}
    dims = () if alone else ("portfolio",)
    return xr.Dataset({name: (dims, array[0] if alone else array) for name, array in values.items()}, coords)


def _checked(returns: torch.Tensor, n_tickers: int) -> None:
    if returns.shape != (n_tickers,):
        raise DataError(f"phi gives returns of shape {tuple(returns.shape)} for {n_tickers} tickers")
    _finite(returns.detach().numpy(), "returns")


def _finite(values: Float64Array, what: str) -> Float64Array:
    if not np.isfinite(values).all():
        raise DataError(f"phi has {what} that are not finite where the factors are")
    return values


def _root(omega: Float64Array) -> Float64Array:
    """Return L with L L' = Omega, of a matrix that may be singular."""
    values, vectors = np.linalg.eigh(0.5 * (omega + omega.T))
    if not np.isfinite(values).all() or values[0] < -1e-10 * max(values[-1], 0.0):
        raise DataError("Omega is not a covariance: it is not known, or has a negative eigenvalue; repair it first")
    root: Float64Array = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _normal(n_draws: int, size: int, seed: int) -> Float64Array:
    half = np.random.default_rng(seed).standard_normal(((n_draws + 1) // 2, size))
    return np.concatenate([half, -half])


def _standard(shocks: Float64Array, size: int) -> Float64Array:
    """Turn and scale draws to have mean 0 and covariance I exactly."""
    if shocks.ndim != 2 or shocks.shape[1] != size or len(shocks) <= 2 * size:
        raise ConfigError(f"shocks of shape {shocks.shape}: give more than {2 * size} draws of {size} factors")
    centred = _finite(shocks, "shocks") - shocks.mean(axis=0)
    root = np.linalg.cholesky(centred.T @ centred / len(centred))
    standard: Float64Array = np.linalg.solve(root, centred.T).T
    return standard
