"""The no-arbitrage loss of an SDF, given its factor or given the conditions of the moments.

Here belong the two views of one number. What makes it small or large belongs in `training`.

The loss of Chen, Pelger and Zhu (2024), who weigh stock i by T_i / T, is

    L = 1/N sum_i T_i/T || 1/T_i sum_t M[t] r_i[t] g(C_i[t-1]) ||^2,   M[t] = 1 - k F[t].

For given g it is quadratic in the returns of the factor, so that stocks are summed over once, and a step of the SDF
network costs no more than its F (date,). The scale k is solved for, and not learnt:

    L = c - 2 k b'F + k^2 F'A F,   k = b'F / F'A F.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from models.families.sdf.network.data import Rows

_SMALLEST = 1e-12
"""Of a mean square by which is divided."""


@dataclass(frozen=True, eq=False)
class MomentLoss:
    """c, b (date,) and A (date, date) in float64, divided by c: the loss of M = 1 is one.

    With the moments themselves as (stock moment,) m = u - V F it is c = u'u, b = V'u and A = V'V.
    """

    linear: torch.Tensor
    quadratic: torch.Tensor

    @classmethod
    def of(cls, rows: Rows, conditions: torch.Tensor) -> Self:
        """Sum over stocks and over the conditions g (row, moment)."""
        n_dates, n_stocks = len(rows.counts), len(rows.spans)
        linear, quadratic = torch.zeros_like(rows.counts), rows.counts.new_zeros(n_dates, n_dates)
        constant = rows.counts.new_zeros(())
        root = (rows.stock_shares.sqrt() / rows.spans.clamp(min=1.0))[rows.stocks]
        for condition in conditions.double().T:
            managed = rows.counts.new_zeros(n_dates, n_stocks)
            managed[rows.dates, rows.stocks] = root * rows.returns * condition
            mean = managed.sum(dim=0)
            quadratic += managed @ managed.T
            linear += managed @ mean
            constant += mean @ mean
        return cls(linear / constant, quadratic / constant)

    def scale(self, factor: torch.Tensor) -> torch.Tensor:
        """Return the k with the least loss for F (date,)."""
        k: torch.Tensor = (self.linear @ factor) / (factor @ self.quadratic @ factor)
        return k

    def best(self, factor: torch.Tensor) -> torch.Tensor:
        """Return the loss of M = 1 - k F at the best k, of whichever sign."""
        best: torch.Tensor = 1.0 - (self.linear @ factor).square() / (factor @ self.quadratic @ factor)
        return best

    def at(self, factor: torch.Tensor) -> torch.Tensor:
        """Return the loss of M = 1 - F."""
        loss: torch.Tensor = 1.0 - 2.0 * self.linear @ factor + factor @ self.quadratic @ factor
        return loss


def conditioned(rows: Rows, kernel: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    """Return the loss of M (date,) under g (row, moment), each condition over its mean square, summed over them."""
    priced = (kernel[rows.dates] * rows.returns / rows.spans[rows.stocks]).to(conditions.dtype)
    zeros = conditions.new_zeros(len(rows.spans), conditions.shape[1])
    moments = zeros.index_add(0, rows.stocks, priced[:, None] * conditions).double()
    size = conditions.square().mean(dim=0).double().clamp(min=_SMALLEST)
    return (rows.stock_shares @ moments.square() / size).sum()


def normalised(conditions: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Divide conditions g (row, moment) by the root mean square of other rows of them."""
    return conditions / by.square().mean(dim=0).clamp(min=_SMALLEST).sqrt()
