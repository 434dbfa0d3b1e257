"""How one network learns: minibatches, Adam, the L1 penalty and early stopping.

Here belongs everything that happens between `TrainingData` and a `Member`. It reads no panel and keeps no
state: the same data, parameters and seed give the same member in any process.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from models.blas import one_thread
from models.families.autoencoder.data import Factors, TrainingData
from models.families.autoencoder.networks import Autoencoder, EpochReport, LoadingsNetwork, Member
from models.families.autoencoder.profiling import places
from schemas.errors import ModelError

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
    factors: Factors


def train(data: TrainingData, options: TrainingOptions, seed: int, callback: Callback | None = None) -> Member:
    """Train the network of one seed on one thread, and return it as of its best epoch on the validation span.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        network = _network(data, options).initialise(generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate, fused=True)
        history: list[EpochReport] = []
        best_loss, best_epoch, best_state = math.inf, 0, network.state_dict()
        for epoch in range(1, options.max_epochs + 1):
            train_loss = _epoch(network, optimizer, data, options.l1, generator)
            validation_loss = _validation_loss(network, data)
            _check_finite(seed, epoch, train_loss, validation_loss)
            better = validation_loss < best_loss
            if better:
                best_loss, best_epoch, best_state = (
                    validation_loss,
                    epoch,
                    copy.deepcopy(network.state_dict()),
                )
            history.append(EpochReport(seed, epoch, train_loss, validation_loss, better))
            if callback is not None:
                callback(history[-1])
            if epoch - best_epoch >= options.patience:
                break
        network.load_state_dict(best_state)
        return network.folded(data.scales, tuple(history))


def _network(data: TrainingData, options: TrainingOptions) -> LoadingsNetwork:
    n_chars = data.characteristics.shape[1]
    if options.factors == "profiled":
        return LoadingsNetwork(n_chars, options.n_factors, options.hidden)
    n_portfolios = data.portfolios.shape[1]
    return Autoencoder(n_chars, n_portfolios, options.n_factors, options.hidden, intercept=options.intercept)


def _epoch(
    network: LoadingsNetwork,
    optimizer: torch.optim.Adam,
    data: TrainingData,
    l1: float,
    generator: torch.Generator,
) -> float:
    """Pass once over the training sample in random order; return the mean squared error of the minibatches."""
    network.train()
    penalised = network.penalised()
    total, count = torch.zeros((), dtype=torch.float64), 0
    batches = _date_batches(data, generator) if network.whole_dates else _minibatches(data.n_train, generator)
    for rows in batches:
        loss = network.errors(data, rows).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
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
    size = _batch_rows(n_rows)
    order = torch.randperm(n_rows, generator=generator)
    return iter(torch.split(order[: n_rows // size * size], size))


def _date_batches(data: TrainingData, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """All rows of random dates, in batches of equally many dates; the few left over wait for the next epoch.

    There are as many dates in a batch as hold the rows of one of `_minibatches`.
    """
    counts = torch.unique_consecutive(data.dates[: data.n_train], return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    n_dates = len(counts)
    size = min(math.ceil(_batch_rows(data.n_train) * n_dates / data.n_train), n_dates)
    order = torch.randperm(n_dates, generator=generator)
    for dates in torch.split(order[: n_dates // size * size], size):
        yield starts[dates].repeat_interleave(counts[dates]) + places(counts[dates])


def _batch_rows(n_rows: int) -> int:
    smallest, largest = _BATCH_ROWS
    return min(max(n_rows // _STEPS_PER_EPOCH, smallest), largest, n_rows)


@torch.no_grad()
def _validation_loss(network: LoadingsNetwork, data: TrainingData) -> float:
    network.eval()
    total = count = 0.0
    for rows in _validation_spans(data, whole_dates=network.whole_dates):
        total += float(network.errors(data, rows).square().sum())
        count += float(data.returns[rows].square().sum())
    return total / count if count else math.nan


def _validation_spans(data: TrainingData, *, whole_dates: bool) -> Iterator[slice]:
    """Spans of the validation rows, of so many rows; or of so many rows and the rest of their last date."""
    start, n_rows = data.n_train, len(data.returns)
    while start < n_rows:
        end = min(start + _BATCH_ROWS[1], n_rows)
        if whole_dates:
            end = int(torch.searchsorted(data.dates, data.dates[end - 1], right=True))
        yield slice(start, end)
        start = end


def _check_finite(seed: int, epoch: int, train_loss: float, validation_loss: float) -> None:
    if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
        raise ModelError(
            f"The loss of seed {seed} is not finite at epoch {epoch} (training {train_loss}, validation "
            f"{validation_loss}): lower learning_rate, or look for absurd returns in the panel."
        )
