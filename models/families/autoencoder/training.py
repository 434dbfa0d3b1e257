"""How one network learns: minibatches, Adam, the L1 penalty and early stopping.

Here belongs everything that happens between `TrainingData` and a `Member`. It reads no panel and keeps no
state: the same data, parameters and seed give the same member in any process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from models.blas import one_thread
from models.families.autoencoder.data import TrainingData
from models.families.autoencoder.networks import Autoencoder, EpochReport, Member
from models.families.neural import BestEpoch, check_finite

Callback = Callable[[EpochReport], None]

_STEPS_PER_EPOCH = 64
_BATCH_ROWS = (256, 4096)


@dataclass(frozen=True)
class TrainingOptions:
    """Parameters of `train`; `ConditionalAutoencoder` explains them."""

    n_factors: int
    hidden: tuple[int, ...]
    intercept: bool
    learning_rate: float
    l1: float
    max_epochs: int
    patience: int


def train(data: TrainingData, options: TrainingOptions, seed: int, callback: Callback | None = None) -> Member:
    """Train the network of one seed on one thread, and return it as of its best epoch on the validation span.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        network = Autoencoder(
            data.characteristics.shape[1],
            data.portfolios.shape[1],
            options.n_factors,
            options.hidden,
            intercept=options.intercept,
        ).initialise(generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate, fused=True)
        history: list[EpochReport] = []
        best = BestEpoch(network, options.patience)
        for epoch in range(1, options.max_epochs + 1):
            train_loss = _epoch(network, optimizer, data, options.l1, generator)
            validation_loss = _validation_loss(network, data)
            check_finite(seed, epoch, train_loss, validation_loss)
            better = best.see(epoch, validation_loss)
            history.append(EpochReport(seed, epoch, train_loss, validation_loss, better))
            if callback is not None:
                callback(history[-1])
            if best.over(epoch):
                break
        best.restore()
        return network.folded(data.scales, tuple(history))


def _epoch(
    network: Autoencoder,
    optimizer: torch.optim.Adam,
    data: TrainingData,
    l1: float,
    generator: torch.Generator,
) -> float:
    """Pass once over the training rows in random order; return the mean squared error of the minibatches."""
    network.train()
    penalised = network.penalised()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for rows in _minibatches(data.n_train, generator):
        systematic = network(data.characteristics[rows], data.portfolios[data.dates[rows]])
        loss = (data.returns[rows] - systematic).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for weight in penalised:
            if weight.grad is not None:
                weight.grad.add_(weight.detach().sign(), alpha=l1)
        optimizer.step()
        total += loss.detach() * len(rows)
        count += len(rows)
    return float(total) / count


def _minibatches(n_rows: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Random rows from any date, in batches of equal size; the few left over wait for the next epoch.

    Rows are mixed over dates so that batch normalisation sees the characteristics of the whole sample.
    """
    smallest, largest = _BATCH_ROWS
    size = min(max(n_rows // _STEPS_PER_EPOCH, smallest), largest, n_rows)
    order = torch.randperm(n_rows, generator=generator)
    return iter(torch.split(order[: n_rows // size * size], size))


@torch.no_grad()
def _validation_loss(network: Autoencoder, data: TrainingData) -> float:
    network.eval()
    total = count = 0.0
    for start in range(data.n_train, len(data.returns), _BATCH_ROWS[1]):
        rows = slice(start, start + _BATCH_ROWS[1])
        returns = data.returns[rows]
        systematic = network(data.characteristics[rows], data.portfolios[data.dates[rows]])
        total += float((returns - systematic).square().sum())
        count += float(returns.square().sum())
    return total / count if count else math.nan
