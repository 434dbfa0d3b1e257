"""What the networks are trained on: dates of the estimation universe as flat rows, in units of their own.

Here belong the flattening, the scaling and the split into training and validation dates. Losses belong in `moments`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from models.statistics.features import Section, Units
from schemas.errors import ModelError


@dataclass(frozen=True, eq=False)
class Rows:
    """Stocks of some consecutive dates, in date order.

    Attributes
    ----------
    inputs : torch.Tensor
        (row, char) float32, standardised.
    returns : torch.Tensor
        (row,) float64, over their root mean square on the training dates.
    dates, stocks : torch.Tensor
        (row,) positions: dates from 0, stocks on the panel's axis.
    counts : torch.Tensor
        (date,) float64 number N[t] of stocks.
    spans : torch.Tensor
        (stock,) float64 number T_i of dates; 0 for a stock that has none.
    """

    inputs: torch.Tensor
    returns: torch.Tensor
    dates: torch.Tensor
    stocks: torch.Tensor
    counts: torch.Tensor
    spans: torch.Tensor

    @classmethod
    def of(cls, sections: Sequence[Section], units: Units, scale: float) -> Self:
        """Flatten dates; returns are divided by ``scale``."""
        counts = [len(section.rows) for section in sections]
        stocks = torch.from_numpy(np.concatenate([section.stocks for section in sections]))
        return cls(
            inputs=torch.from_numpy(np.concatenate([units(section.rows).astype(np.float32) for section in sections])),
            returns=torch.from_numpy(np.concatenate([section.returns for section in sections]) / scale),
            dates=torch.from_numpy(np.repeat(np.arange(len(sections)), counts)),
            stocks=stocks,
            counts=torch.tensor(counts, dtype=torch.float64),
            spans=torch.bincount(stocks).double(),
        )

    @property
    def stock_shares(self) -> torch.Tensor:
        """(stock,) T_i / T over the number of stocks: what stock i counts in the loss."""
        shares: torch.Tensor = self.spans / (len(self.counts) * int((self.spans > 0.0).sum()))
        return shares

    def factor(self, weights: torch.Tensor) -> torch.Tensor:
        """Return F[t] = sum_i w_i r_i / N as (date,) float64 of the weights (row,)."""
        total = torch.zeros_like(self.counts).index_add(0, self.dates, weights.double() * self.returns)
        return total / self.counts


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Dates to learn from, and the last ones, on which it is judged when to stop."""

    learnt: Rows
    held: Rows

    @classmethod
    def of(cls, sections: Sequence[Section], units: Units, validation_fraction: float) -> Self:
        """Hold out the last ``validation_fraction`` of the dates. ModelError if all returns before are zero."""
        n_learnt = len(sections) - math.ceil(validation_fraction * len(sections))
        squares = np.concatenate([np.square(section.returns) for section in sections[:n_learnt]])
        scale = float(np.sqrt(squares.mean()))
        if not scale > 0.0:
            raise ModelError("The managed portfolios of the SDF earn nothing: check the returns of the panel.")
        return cls(Rows.of(sections[:n_learnt], units, scale), Rows.of(sections[n_learnt:], units, scale))
