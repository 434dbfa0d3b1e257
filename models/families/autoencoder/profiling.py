"""Factors that are profiled out of the loss: least squares of the returns of each date on its loadings.

Here belongs the loss of variable projection (Golub and Pereyra 1973). The network that gives the loadings belongs in
`networks`, the choice of dates in `training`.
"""

from __future__ import annotations

import torch

_RIDGE = 1e-9  # beside the mean squared loading: far below what float32 loadings resolve


def profiled_errors(loadings: torch.Tensor, returns: torch.Tensor, dates: torch.Tensor) -> torch.Tensor:
    """Return e = r - X f(X) of each row, with f(X) = (X'X)^-1 X'r of its date; differentiable in X.

    X'X has a ridge of 1e-9 of its mean diagonal, so that it can be solved where loadings are collinear. All sums
    are taken in float64.

    Parameters
    ----------
    loadings : torch.Tensor
        (row, factor) X, date by date.
    returns : torch.Tensor
        (row,) r.
    dates : torch.Tensor
        (row,) date of each row; the rows of a date lie together.

    Returns
    -------
    torch.Tensor
        (row,) float64.
    """
    _, date, counts = torch.unique_consecutive(dates, return_inverse=True, return_counts=True)
    place = places(counts)
    shape = (len(counts), int(counts.max()))
    rows, values = loadings.double(), returns.double()
    padded = rows.new_zeros((*shape, rows.shape[1])).index_put((date, place), rows)
    moment = padded.mT @ values.new_zeros(shape).index_put((date, place), values)[..., None]
    gram = padded.mT @ padded
    size = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    ridge = _RIDGE * size[:, None, None] * torch.eye(rows.shape[1], dtype=rows.dtype)
    factors = torch.linalg.solve_ex(gram + ridge, moment).result[..., 0]
    systematic: torch.Tensor = torch.linalg.vecdot(rows, factors[date])
    return values - systematic


def places(counts: torch.Tensor) -> torch.Tensor:
    """Return 0, 1, ... for the rows of each date in turn, from the (date,) counts of rows."""
    return torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
