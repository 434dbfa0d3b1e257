"""How one network of loadings learns from residuals: factor returns are least squares given the loadings.

Here belong the sample and the loss. Descent, early stopping and the network itself are
`models.families.autoencoder`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from models.arrays import FloatArray
from models.blas import one_thread
from models.families.autoencoder.data import flat_rows, moments
from models.families.autoencoder.networks import Layers, LoadingsNetwork
from models.families.autoencoder.training import Callback, DescentOptions, batch_rows, descend
from models.families.residual_network.leaving_out import DECIDES_ITSELF
from models.panel import Panel

_RIDGE = 1e-8  # of the mean of the diagonal of G'G, so that loadings of fewer dimensions than factors can be solved


@dataclass(frozen=True, eq=False)
class ResidualRows:
    """Rows of characteristics and residuals in order of dates, scaled; the last dates are those on which it stops.

    Attributes
    ----------
    characteristics : torch.Tensor
        (row, char) float32.
    residuals : torch.Tensor
        (row,) float64.
    begins : torch.Tensor
        (date + 1,) first row of each date, and the number of rows.
    n_train : int
        Dates to learn from, before those on which it stops.
    char_mean, char_scale : numpy.ndarray
        (char,) what was subtracted from characteristics, and by what they were divided.
    """

    characteristics: torch.Tensor
    residuals: torch.Tensor
    begins: torch.Tensor
    n_train: int
    char_mean: FloatArray
    char_scale: FloatArray

    @classmethod
    def of(cls, learning: Panel, stopping: Panel) -> Self:
        """Flatten two panels of residuals, the second after the first."""
        parts = [flat_rows(part, part.mask.values) for part in (learning, stopping)]
        counts = [np.unique(dates, return_counts=True)[1] for _, _, dates in parts]
        characteristics, residuals = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        n_rows = len(parts[0][0])
        mean, scale = moments(characteristics[:n_rows])
        characteristics -= mean.astype(np.float32)
        characteristics /= scale.astype(np.float32)
        unit = float(np.sqrt(np.square(residuals[:n_rows]).mean())) or 1.0
        return cls(
            characteristics=torch.from_numpy(characteristics),
            residuals=torch.from_numpy(residuals / unit),
            begins=torch.from_numpy(np.cumsum([0, *np.concatenate(counts)])),
            n_train=len(counts[0]),
            char_mean=mean,
            char_scale=scale,
        )


@dataclass(frozen=True, eq=False)
class ProfiledLoss:
    """Variance of e[t] - G[t] f[t] with G = g(C[t-1]) and f[t] = (G'G)^-1 G'e, in minibatches of whole dates.

    The loss of loadings alone, with the factor returns that suit them best (variable projection, Golub and Pereyra
    1973). At these its slope in them is zero, so that its gradient in the loadings is that at fixed factor returns.
    """

    network: LoadingsNetwork
    rows: ResidualRows

    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Dates in random order."""
        n_dates, n_rows = self.rows.n_train, int(self.rows.begins[self.rows.n_train])
        size = max(1, batch_rows(n_rows) * n_dates // n_rows)
        return iter(torch.split(torch.randperm(n_dates, generator=generator), size))

    def errors(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what is left of the residuals of some dates."""
        loadings, residuals, date = self._section(batch)
        with torch.no_grad():
            known = loadings.double()
            gram, moment = _moments(known, residuals, date, len(batch))
            factors = torch.linalg.solve(gram, moment)
        left: torch.Tensor = residuals - torch.linalg.vecdot(loadings.double(), factors[date])
        return left

    def validation_loss(self) -> float:
        """Leave-one-out squares over squares, on the dates on which it stops.

        As `models.families.residual_network.leaving_out`, with all weights equal.
        """
        n_dates = len(self.rows.begins) - 1
        dates = torch.arange(self.rows.n_train, n_dates)
        loadings, residuals, date = self._section(dates)
        known = loadings.double()
        gram, moment = _moments(known, residuals, date, len(dates))
        towards = torch.linalg.solve(gram[date], known)
        slack = 1.0 - torch.linalg.vecdot(towards, known)
        left = (residuals - torch.linalg.vecdot(towards, moment[date])) / slack
        left = torch.where(slack > DECIDES_ITSELF, left, residuals)
        return float(left.square().sum() / residuals.square().sum())

    def _section(self, dates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loadings (row, factor), residuals (row,) and which of the dates (row,) each is of."""
        begins, ends = self.rows.begins[dates], self.rows.begins[dates + 1]
        date = torch.repeat_interleave(torch.arange(len(dates)), ends - begins)
        offsets = torch.cumsum(ends - begins, 0) - (ends - begins)
        chosen = torch.arange(len(date)) - offsets[date] + begins[date]
        return self.network.beta(self.rows.characteristics[chosen]), self.rows.residuals[chosen], date


def learn(
    rows: ResidualRows,
    n_factors: int,
    hidden: tuple[int, ...],
    options: DescentOptions,
    seed: int,
    callback: Callback | None = None,
) -> Layers:
    """Train the network of one seed on one thread, and return it as of its best epoch.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        network = LoadingsNetwork(rows.characteristics.shape[1], n_factors, hidden).initialise(generator)
        history = descend(network, ProfiledLoss(network, rows), options, seed, generator, callback)
        return network.layers(rows.char_mean, rows.char_scale, history)


def _moments(
    loadings: torch.Tensor, residuals: torch.Tensor, date: torch.Tensor, n_dates: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return G'G with a slight ridge, and G'e, of each date."""
    size = loadings.shape[1]
    gram = loadings.new_zeros((n_dates, size, size)).index_add_(0, date, loadings[:, :, None] * loadings[:, None, :])
    moment = loadings.new_zeros((n_dates, size)).index_add_(0, date, loadings * residuals[:, None])
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(torch.finfo(gram.dtype).tiny)
    return gram + ridge[:, None, None] * torch.eye(size, dtype=gram.dtype), moment
