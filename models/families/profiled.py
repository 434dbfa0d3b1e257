"""Factors on loadings that networks make of characteristics, with factor returns that are least squares given them.

Here belong the sample, the loss and what several trained networks become together. What returns are explained, and
further terms of the loss, belong in the families: `models.families.residual_network`, `.risk_network`. Descent, early
stopping and the network itself are `models.families.autoencoder`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch

from models.arrays import Float64Array, FloatArray
from models.blas import one_thread
from models.families.autoencoder.data import flat_rows, moments
from models.families.autoencoder.ensemble import LoadingsNetworks, collapsed, mean_gram, nearest, principal_axes
from models.families.autoencoder.networks import Layers, LoadingsNetwork
from models.families.autoencoder.profiling import places
from models.families.autoencoder.training import Callback, DescentOptions, Objective, batch_rows, descend
from models.panel import Panel
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections

DECIDES_ITSELF = 1e-8
"""1 - leverage below which a stock decides the factor return by itself."""
_RIDGE = 1e-8  # of the mean of the diagonal of G'G, so that loadings of fewer dimensions than factors can be solved


@dataclass(frozen=True, eq=False)
class ProfiledRows:
    """Rows of characteristics and returns (or residuals), scaled, in order of dates; on the last ones training stops.

    Attributes
    ----------
    characteristics : torch.Tensor
        (row, char) float32.
    returns : torch.Tensor
        (row,) float64, over their root mean square on the dates to learn from.
    begins : torch.Tensor
        (date + 1,) first row of each date, and the number of rows.
    n_train : int
        Dates to learn from, before those on which it stops.
    char_mean, char_scale : numpy.ndarray
        (char,) what was subtracted from characteristics, and by what they were divided.
    """

    characteristics: torch.Tensor
    returns: torch.Tensor
    begins: torch.Tensor
    n_train: int
    char_mean: FloatArray
    char_scale: FloatArray

    @classmethod
    def of(cls, learning: Panel, stopping: Panel) -> Self:
        """Flatten two panels, the second after the first."""
        parts = [flat_rows(part, part.mask.values) for part in (learning, stopping)]
        counts = [np.unique(dates, return_counts=True)[1] for _, _, dates in parts]
        characteristics, returns = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        n_rows = len(parts[0][0])
        mean, scale = moments(characteristics[:n_rows])
        characteristics -= mean.astype(np.float32)
        characteristics /= scale.astype(np.float32)
        unit = float(np.sqrt(np.square(returns[:n_rows]).mean())) or 1.0
        return cls(
            characteristics=torch.from_numpy(characteristics),
            returns=torch.from_numpy(returns / unit),
            begins=torch.from_numpy(np.cumsum([0, *np.concatenate(counts)])),
            n_train=len(counts[0]),
            char_mean=mean,
            char_scale=scale,
        )

    def of_dates(self, dates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of some dates, and which of these (row,) each is of."""
        begins = self.begins[dates]
        counts = self.begins[dates + 1] - begins
        date = torch.arange(len(dates)).repeat_interleave(counts)
        return begins.repeat_interleave(counts) + places(counts), date


Rows = TypeVar("Rows", bound=ProfiledRows)


@dataclass(frozen=True, eq=False)
class ProfiledLoss(Objective):
    """Variance of r[t] - G[t] f[t] with G = g(C[t-1]) and f[t] = (G'G)^-1 G'r, in minibatches of whole dates.

    The loss of loadings alone, with the factor returns that suit them best (variable projection, Golub and Pereyra
    1973). At these its slope in them is zero, so that its gradient in the loadings is that at fixed factor returns.
    """

    network: LoadingsNetwork
    rows: ProfiledRows

    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Dates in random order."""
        n_dates, n_rows = self.rows.n_train, int(self.rows.begins[self.rows.n_train])
        size = max(1, batch_rows(n_rows) * n_dates // n_rows)
        return iter(torch.split(torch.randperm(n_dates, generator=generator), size))

    def errors(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what is left of the returns of some dates."""
        loadings, returns, date = self._section(batch)
        with torch.no_grad():
            known = loadings.double()
            gram, moment = date_moments(known, returns, date, len(batch))
            factors = torch.linalg.solve(gram, moment)
        left: torch.Tensor = returns - torch.linalg.vecdot(loadings.double(), factors[date])
        return left

    def validation_loss(self) -> float:
        """Leave-one-out squares over squares, on the dates on which it stops.

        As `models.families.residual_network.leaving_out`, with all weights equal.
        """
        n_dates = len(self.rows.begins) - 1
        dates = torch.arange(self.rows.n_train, n_dates)
        loadings, returns, date = self._section(dates)
        known = loadings.double()
        gram, moment = date_moments(known, returns, date, len(dates))
        towards = torch.linalg.solve(gram[date], known)
        slack = 1.0 - torch.linalg.vecdot(towards, known)
        left = (returns - torch.linalg.vecdot(towards, moment[date])) / slack
        left = torch.where(slack > DECIDES_ITSELF, left, returns)
        return float(left.square().sum() / returns.square().sum())

    def _section(self, dates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loadings (row, factor), returns (row,) and which of the dates (row,) each is of."""
        chosen, date = self.rows.of_dates(dates)
        return self.network.beta(self.rows.characteristics[chosen]), self.rows.returns[chosen], date


@dataclass(frozen=True, eq=False)
class ProfiledFactors:
    """Networks whose outputs add up to the loadings, with factor returns that are least squares given these.

    Attributes
    ----------
    networks : LoadingsNetworks
    chars : list of str
        The characteristics, in the order in which the networks take them.
    """

    networks: LoadingsNetworks
    chars: list[str]

    @classmethod
    def nearest(cls, members: Sequence[Layers], panel: Panel) -> Self | None:
        """Take the K-factor model nearest to the average of networks, on the panel that they were trained on.

        Its loadings have E[X'X / n] = I, its factors are uncorrelated. Networks that give fewer than K factors are left
        out; None if all do.
        """
        kept = [member for member in members if cls._known_returns([member], panel) is not None]
        while kept:
            factors, gram = cls._known_returns(kept, panel), mean_gram(kept, panel)
            if factors is None:
                return None
            lost = collapsed(kept, gram, factors)
            if not lost:
                networks, to_factors = nearest(kept, gram, factors)
                return cls(networks.rotated(principal_axes(factors @ to_factors)), panel.chars)
            kept = [member for place, member in enumerate(kept) if place not in lost]
        return None

    @property
    def n_factors(self) -> int:
        """How many there are."""
        return int(self.networks.weights[-1].shape[2])

    def loadings(self, panel: Panel) -> FloatArray:
        """Return g(C[t-1]) as (date, ticker, factor) float32; NaN where not covered."""
        return self.networks.of_panel(panel, self.chars)

    def factor_returns(self, panel: Panel) -> Float64Array:
        """Regress returns on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        parts = []
        for block in panel.blocks():
            gram, moment = cross_sections(*self.entering(block))
            solution, rank = solve_gram(gram, moment[..., None])
            parts.append(np.where((rank == self.n_factors)[:, None], solution[..., 0], np.nan))
        return np.concatenate(parts)

    def entering(self, block: Panel) -> tuple[FloatArray, Float64Array, Float64Array]:
        """Return loadings (date, ticker, factor), returns and weights (date, ticker), zero where not in the mask."""
        inside = block.mask.values
        returns = np.where(inside, block.returns.values, 0.0).astype(np.float64)
        return self.loadings(block), returns, inside.astype(np.float64)

    def rotated(self, rotation: FloatArray) -> Self:
        """Return the same factors turned by an orthogonal (factor, factor) R."""
        return type(self)(self.networks.rotated(rotation), self.chars)

    @classmethod
    def _known_returns(cls, members: Sequence[Layers], panel: Panel) -> Float64Array | None:
        """Return factor returns of all members, side by side, on dates on which all have them; None if none are."""
        each = [cls(LoadingsNetworks.stack([member]), panel.chars) for member in members]
        returns = np.hstack([factors.factor_returns(panel) for factors in each])
        known = np.isfinite(returns).all(axis=1)
        return returns[known] if known.any() else None


def learn(
    rows: Rows,
    n_factors: int,
    hidden: tuple[int, ...],
    options: DescentOptions,
    seed: int,
    callback: Callback | None = None,
    objective: Callable[[LoadingsNetwork, Rows], Objective] = ProfiledLoss,
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
        history = descend(network, objective(network, rows), options, seed, generator, callback)
        return network.layers(rows.char_mean, rows.char_scale, history)


def date_moments(
    loadings: torch.Tensor, returns: torch.Tensor, date: torch.Tensor, n_dates: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return G'G with a slight ridge, and G'r, of each date."""
    size = loadings.shape[1]
    gram = loadings.new_zeros((n_dates, size, size)).index_add_(0, date, loadings[:, :, None] * loadings[:, None, :])
    moment = loadings.new_zeros((n_dates, size)).index_add_(0, date, loadings * returns[:, None])
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(torch.finfo(gram.dtype).tiny)
    return gram + ridge[:, None, None] * torch.eye(size, dtype=gram.dtype), moment
