"""How one seed is trained: the SDF, then its adversary, then the SDF again.

Here belongs everything that happens between `TrainingData` and a `Member`. It reads no panel and keeps no state: the
same data, parameters and seed give the same member in any process.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.blas import one_thread
from models.families.base import Report
from models.families.neural import BestEpoch, check_finite
from models.families.sdf.network.data import Rows, TrainingData
from models.families.sdf.network.moments import MomentLoss, conditioned, normalised
from models.families.sdf.network.networks import Member, Players


@dataclass(frozen=True)
class TrainingOptions:
    """Parameters of `train`; `SDFNetwork` explains them."""

    hidden: tuple[int, ...]
    n_moments: int
    learning_rate: float
    max_epochs: int
    adversary_epochs: int
    patience: int


def train(data: TrainingData, options: TrainingOptions, seed: int, report: Report | None = None) -> Member:
    """Train the networks of one seed on one thread, in the three steps of Chen, Pelger and Zhu (2024).

    1. The SDF network makes the unconditional moments small, g = 1.
    2. The adversary makes the loss of that SDF large by its conditions g.
    3. The SDF network, which goes on from 1, makes the moments under g small.

    In 1 and 3 the weights of the epoch count that has the lowest loss on the dates held out. The loss does not
    depend on their sign, which is then the one with k > 0.

    Raises
    ------
    ModelError
        If a loss is not finite.
    """
    with one_thread():
        generator = torch.Generator().manual_seed(seed)
        players = Players(data.learnt.inputs.shape[1], options.hidden, options.n_moments, generator)
        learnt, held = (torch.ones(len(rows.returns), 1) for rows in (data.learnt, data.held))
        _minimise(players, data, learnt, held, options, f"seed {seed}: without conditions", report, seed)
        _maximise(players, data.learnt, options, f"seed {seed}: adversary", report)
        with torch.no_grad():
            learnt, held = (players.conditions(rows.inputs) for rows in (data.learnt, data.held))
        learnt, held = normalised(learnt, learnt), normalised(held, learnt)
        _minimise(players, data, learnt, held, options, f"seed {seed}: with conditions", report, seed)
        return Member.of(players.sdf)


def _minimise(
    players: Players,
    data: TrainingData,
    learnt: torch.Tensor,
    held: torch.Tensor,
    options: TrainingOptions,
    step: str,
    report: Report | None,
    seed: int,
) -> None:
    """Train the SDF network on the conditions (row, moment) of the dates learnt from, until those held out say stop."""
    loss, judge = MomentLoss.of(data.learnt, learnt), MomentLoss.of(data.held, held)
    optimizer = torch.optim.Adam(players.sdf.parameters(), lr=options.learning_rate, fused=True)
    best = BestEpoch(players.sdf, options.patience)
    for epoch in range(options.max_epochs + 1):
        factor = data.learnt.factor(players.weights(data.learnt.inputs))
        current = loss.best(factor)
        with torch.no_grad():
            outside = data.held.factor(players.weights(data.held.inputs))
            validation = judge.at(loss.scale(factor) * outside).item()
        training = current.item()
        check_finite(seed, epoch, training, validation)
        best.see(epoch, validation)
        if report is not None:
            report(f"{step}, epoch {epoch}, loss {training:.4f} in training, {validation:.4f} on validation")
        if best.over(epoch) or epoch == options.max_epochs:
            break
        optimizer.zero_grad()
        torch.autograd.backward(current)
        optimizer.step()
    best.restore()
    with torch.no_grad():
        if loss.scale(data.learnt.factor(players.weights(data.learnt.inputs))) < 0.0:
            players.turn()


def _maximise(players: Players, rows: Rows, options: TrainingOptions, step: str, report: Report | None) -> None:
    """Train the adversary against the kernel M = 1 - k F, with the k of the unconditional moments."""
    with torch.no_grad():
        factor = rows.factor(players.weights(rows.inputs))
        kernel = 1.0 - MomentLoss.of(rows, torch.ones(len(rows.returns), 1)).scale(factor) * factor
    optimizer = torch.optim.Adam(players.adversary.parameters(), lr=options.learning_rate, fused=True)
    for epoch in range(1, options.adversary_epochs + 1):
        loss = conditioned(rows, kernel, players.conditions(rows.inputs))
        if report is not None:
            report(f"{step}, epoch {epoch}, loss {loss.item():.4g}")
        optimizer.zero_grad()
        torch.autograd.backward(-loss)
        optimizer.step()
