"""How one network learns: minibatches, Adam, the L1 penalty and early stopping.

Here belongs everything that happens between `TrainingData` and a `Member`. It reads no panel and keeps no
state: the same data, parameters and seed give the same member in any process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from models.blas import one_thread
from models.families.autoencoder.data import Factors, TrainingData
from models.families.autoencoder.networks import Autoencoder, EpochReport, LoadingsNetwork, Member
from models.families.autoencoder.profiling import places, profiled_errors
from models.families.neural import BestEpoch, check_finite

Callback = Callable[[EpochReport], None]

_STEPS_PER_EPOCH = 64
_BATCH_ROWS = (256, 4096)


@dataclass(frozen=True, kw_only=True)
class DescentOptions:
    """Parameters of `descend`; `ConditionalAutoencoder` explains them."""

    learning_rate: float
    l1: float
    max_epochs: int
    patience: int


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(DescentOptions):
    """Parameters of `train`; `ConditionalAutoencoder` explains them."""

    n_factors: int
    hidden: tuple[int, ...]
    intercept: bool
    factors: Factors


class Objective(ABC):
    """What a network learns from, and on what it stops."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Positions of the training sample in random order, a minibatch at a time."""

    @abstractmethod
    def errors(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (row,) what the network leaves of the returns of a minibatch, with its gradient."""

    def further(self) -> torch.Tensor | None:
        """Return what is added to the mean squared error of a minibatch, with its gradient; None: that is all."""
        return None

    @abstractmethod
    def validation_loss(self) -> float:
        """Return the loss on the validation span."""


@dataclass(frozen=True, eq=False)
class _Rows(Objective):
    """Returns and managed portfolios, in minibatches of rows."""

    network: Autoencoder
    data: TrainingData

    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Random rows from any date, in batches of equal size; the few left over wait for the next epoch.

        Rows are mixed over dates so that batch normalisation sees the characteristics of the whole sample.
        """
        n_rows = self.data.n_train
        size = min(batch_rows(n_rows), n_rows)
        order = torch.randperm(n_rows, generator=generator)
        return iter(torch.split(order[: n_rows // size * size], size))

    def errors(self, batch: torch.Tensor | slice) -> torch.Tensor:
        data = self.data
        systematic: torch.Tensor = self.network(data.characteristics[batch], data.portfolios[data.dates[batch]])
        return data.returns[batch] - systematic

    def validation_loss(self) -> float:
        begins = range(self.data.n_train, len(self.data.returns), _BATCH_ROWS[1])
        return _left(self, (slice(begin, begin + _BATCH_ROWS[1]) for begin in begins))


@dataclass(frozen=True, eq=False)
class _Dates(Objective):
    """Returns in minibatches of whole dates, whose factors are profiled."""

    network: LoadingsNetwork
    data: TrainingData

    def batches(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """All rows of random dates, in batches of equally many dates; the few left over wait for the next epoch.

        There are as many dates in a batch as hold the rows of one of `_Rows`.
        """
        n_rows = self.data.n_train
        counts = torch.unique_consecutive(self.data.dates[:n_rows], return_counts=True)[1]
        starts = counts.cumsum(0) - counts
        n_dates = len(counts)
        size = min(math.ceil(min(batch_rows(n_rows), n_rows) * n_dates / n_rows), n_dates)
        order = torch.randperm(n_dates, generator=generator)
        for dates in torch.split(order[: n_dates // size * size], size):
            yield starts[dates].repeat_interleave(counts[dates]) + places(counts[dates])

    def errors(self, batch: torch.Tensor | slice) -> torch.Tensor:
        data = self.data
        return profiled_errors(self.network.beta(data.characteristics[batch]), data.returns[batch], data.dates[batch])

    def validation_loss(self) -> float:
        return _left(self, self._validation_spans())

    def _validation_spans(self) -> Iterator[slice]:
        dates, start = self.data.dates, self.data.n_train
        while start < len(dates):
            last = dates[min(start + _BATCH_ROWS[1], len(dates)) - 1]
            rows = slice(start, int(torch.searchsorted(dates, last, right=True)))
            yield rows
            start = rows.stop


def _left(objective: _Rows | _Dates, spans: Iterable[slice]) -> float:
    """Return the sum of squared errors of some rows over that of their returns, 1 - R2."""
    total = count = 0.0
    for rows in spans:
        total += float(objective.errors(rows).square().sum())
        count += float(objective.data.returns[rows].square().sum())
    return total / count if count else math.nan


def train(data: TrainingData, options: TrainingOptions, seed: int, callback: Callback | None = None) -> Member:
    """Train the network of one seed on one thread, and return it as of its best epoch on the validation span.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        n_chars, n_portfolios = data.characteristics.shape[1], data.portfolios.shape[1]
        if options.factors == "profiled":
            alone = LoadingsNetwork(n_chars, options.n_factors, options.hidden).initialise(generator)
            history = descend(alone, _Dates(alone, data), options, seed, generator, callback)
            return Member.of_loadings(alone.layers(data.scales.char_mean, data.scales.char_scale, history))
        network = Autoencoder(
            n_chars,
            n_portfolios,
            options.n_factors,
            options.hidden,
            intercept=options.intercept,
            relu_first=options.factors == "returns",
        ).initialise(generator)
        history = descend(network, _Rows(network, data), options, seed, generator, callback)
        return network.folded(data.scales, history)


def descend(
    network: LoadingsNetwork,
    objective: Objective,
    options: DescentOptions,
    seed: int,
    generator: torch.Generator,
    callback: Callback | None = None,
) -> tuple[EpochReport, ...]:
    """Learn by Adam until the validation loss falls no more; leave the network as of its best epoch.

    Returns
    -------
    tuple of EpochReport
        Every epoch.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate, fused=True)
    history: list[EpochReport] = []
    best = BestEpoch(network, options.patience)
    for epoch in range(1, options.max_epochs + 1):
        network.train()
        train_loss = _epoch(network, optimizer, objective, options.l1, generator)
        network.eval()
        with torch.no_grad():
            validation_loss = objective.validation_loss()
        check_finite(seed, epoch, train_loss, validation_loss)
        better = best.see(epoch, validation_loss)
        history.append(EpochReport(seed, epoch, train_loss, validation_loss, better))
        if callback is not None:
            callback(history[-1])
        if best.over(epoch):
            break
    best.restore()
    return tuple(history)


def batch_rows(n_rows: int) -> int:
    """Return how many rows a minibatch of so many has."""
    smallest, largest = _BATCH_ROWS
    return min(max(n_rows // _STEPS_PER_EPOCH, smallest), largest)


def _epoch(
    network: LoadingsNetwork,
    optimizer: torch.optim.Adam,
    objective: Objective,
    l1: float,
    generator: torch.Generator,
) -> float:
    """Pass once over the training rows in random order; return the mean loss of the minibatches."""
    penalised = network.penalised()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in objective.batches(generator):
        errors = objective.errors(batch)
        loss, further = errors.square().mean(), objective.further()
        if further is not None:
            loss = loss + further
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for weight in penalised:
            if weight.grad is not None:
                weight.grad.add_(weight.detach().sign(), alpha=l1)
        optimizer.step()
        total += loss.detach() * len(errors)
        count += len(errors)
    return float(total) / count
