"""The two networks of a conditional autoencoder, and their plain form after training.

Here belong the architecture, its initialisation from one seed, and the folding of everything that training
added (scales, batch normalisation) into plain weights. How the weights are learnt belongs in `training`; how
several networks become one model belongs in `ensemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from models.arrays import FloatArray
from models.families.autoencoder.data import Scales
from models.families.base import ModelState
from models.families.neural import array, draw, layers_of, linear, named_layers


@dataclass(frozen=True)
class EpochReport:
    """How far one seed has come.

    Attributes
    ----------
    seed, epoch : int
        Which network, and which pass over its training rows, counted from 1.
    train_loss, validation_loss : float
        Sum of squared errors over the sum of squared returns, that is 1 - R2, and what the loss of a family has
        beside it: of the minibatches while they were learnt, and of the validation span with the weights at the
        end of the epoch.
    best : bool
        Whether no earlier epoch had a lower validation loss.
    """

    seed: int
    epoch: int
    train_loss: float
    validation_loss: float
    best: bool

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"seed {self.seed}: epoch {self.epoch}, loss {self.train_loss:.4f} in training, "
            f"{self.validation_loss:.4f} on validation"
        )


@dataclass(frozen=True, kw_only=True)
class Layers:
    """A trained network of loadings, as plain arrays: small, and safe to send between processes.

    Attributes
    ----------
    weights : tuple of numpy.ndarray
        Layers (input, output) of the network, which takes the panel's characteristics as they are.
    biases : tuple of numpy.ndarray
        (output,) per layer; ReLU follows every layer but the last.
    history : tuple of EpochReport
        Every epoch of the training.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    history: tuple[EpochReport, ...]

    @property
    def n_factors(self) -> int:
        """How many loadings the network gives."""
        return int(self.weights[-1].shape[1])

    def state(self) -> ModelState:
        """Return everything, for `from_state`."""
        layers = named_layers(self.weights, self.biases)
        return ModelState(layers, {"history": [asdict(report) for report in self.history]})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """Rebuild from `state`."""
        return cls(**cls._fields(state))

    @staticmethod
    def _fields(state: ModelState) -> dict[str, Any]:
        weights, biases = layers_of(state.arrays)
        history = tuple(EpochReport(**report) for report in state.meta["history"])
        return {"weights": weights, "biases": biases, "history": history}


@dataclass(frozen=True, kw_only=True)
class Member(Layers):
    """One trained autoencoder of the ensemble.

    Attributes
    ----------
    factor_weight : numpy.ndarray
        (portfolio, factor) float64: factors are ``portfolios @ factor_weight + factor_bias``, in decimals per
        period; of no portfolio if factors are profiled.
    factor_bias : numpy.ndarray
        (factor,) float64; zero unless the target is one_ahead or factors are linear in the returns of stocks.
    """

    factor_weight: FloatArray
    factor_bias: FloatArray

    @classmethod
    def of_loadings(cls, layers: Layers) -> Self:
        """Take a network of loadings whose factors are profiled."""
        none = np.zeros((0, layers.n_factors))
        return cls(**vars(layers), factor_weight=none, factor_bias=np.zeros(layers.n_factors))

    def state(self) -> ModelState:
        """Return everything, for `from_state`."""
        layers = super().state()
        factors = {"factor_weight": self.factor_weight, "factor_bias": self.factor_bias}
        return ModelState(layers.arrays | factors, layers.meta)

    @staticmethod
    def _fields(state: ModelState) -> dict[str, Any]:
        own = {name: state.arrays[name] for name in ("factor_weight", "factor_bias")}
        return Layers._fields(state) | own


class LoadingsNetwork(nn.Module):
    """beta(z): a feed-forward network of characteristics.

    Batch normalisation and ReLU in the hidden layers, or first ReLU of a layer with a bias; the output linear.
    """

    def __init__(self, n_chars: int, n_factors: int, hidden: Sequence[int], *, relu_first: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_chars
        for units in hidden:
            if relu_first:
                layers += [linear(width, units), nn.ReLU(), nn.BatchNorm1d(units)]
            else:
                layers += [linear(width, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()]
            width = units
        self.beta = nn.Sequential(*layers, linear(width, n_factors))

    def initialise(self, generator: torch.Generator) -> Self:
        """Draw all weights uniformly within 1 / sqrt(inputs) from the generator, and from nothing else."""
        draw(self, generator)
        return self

    def penalised(self) -> list[torch.Tensor]:
        """Weights of the linear layers, on which the L1 penalty lies."""
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Linear)]

    def layers(self, char_mean: FloatArray, char_scale: FloatArray, history: tuple[EpochReport, ...]) -> Layers:
        """Absorb the scales (char,) of inputs and batch normalisation into plain layers.

        Hidden layer: BN(W z) = (g / s) W z + (b - m g / s) with the running mean m and deviation s of
        evaluation mode. Where ReLU comes first, the next layer takes it: W BN(h) = W (g / s) h + W (b - m g / s).
        """
        weights: list[FloatArray] = []
        biases: list[FloatArray] = []
        gain = shift = None
        for before, layer in zip([None, *self.beta], self.beta, strict=False):
            if isinstance(layer, nn.Linear):
                weights.append(array(layer.weight).T)
                biases.append(np.zeros(layer.out_features) if layer.bias is None else array(layer.bias))
                if gain is not None and shift is not None:
                    biases[-1] = biases[-1] + shift @ weights[-1]
                    weights[-1] = gain[:, None] * weights[-1]
                    gain = shift = None
            elif isinstance(layer, nn.BatchNorm1d):
                gain, shift = _affine(layer)
                if isinstance(before, nn.Linear):
                    weights[-1] = weights[-1] * gain
                    biases[-1] = shift
                    gain = shift = None
        first = weights[0] / char_scale[:, None]
        biases[0] = biases[0] - char_mean @ first
        weights[0] = first
        return Layers(
            weights=tuple(weight.astype(np.float32) for weight in weights),
            biases=tuple(offset.astype(np.float32) for offset in biases),
            history=history,
        )


class Autoencoder(LoadingsNetwork):
    """beta(z)' f(x): a feed-forward network of characteristics times a linear map of managed portfolios, or of stocks.

    Gu, Kelly and Xiu (2021), figure 2.
    """

    def __init__(
        self,
        n_chars: int,
        n_portfolios: int,
        n_factors: int,
        hidden: Sequence[int],
        *,
        intercept: bool,
        relu_first: bool = False,
    ) -> None:
        super().__init__(n_chars, n_factors, hidden, relu_first=relu_first)
        self.factor = linear(n_portfolios, n_factors, bias=intercept)

    def forward(self, characteristics: torch.Tensor, portfolios: torch.Tensor) -> torch.Tensor:
        """Return the systematic return of each row."""
        systematic: torch.Tensor = torch.linalg.vecdot(self.beta(characteristics), self.factor(portfolios))
        return systematic

    def folded(self, scales: Scales, history: tuple[EpochReport, ...]) -> Member:
        """Absorb scales and batch normalisation into plain layers that take and give decimals."""
        layers = self.layers(scales.char_mean, scales.char_scale, history)
        factor_weight = array(self.factor.weight).T * (scales.returns / scales.portfolios[:, None])
        bias = np.zeros(self.factor.out_features) if self.factor.bias is None else array(self.factor.bias)
        return Member(**vars(layers), factor_weight=factor_weight, factor_bias=bias * scales.returns)


def _affine(layer: nn.BatchNorm1d) -> tuple[FloatArray, FloatArray]:
    """Return what batch normalisation multiplies by and adds, in evaluation mode."""
    if layer.running_mean is None or layer.running_var is None:  # pragma: no cover
        raise TypeError("Batch normalisation must track running statistics.")
    gain = array(layer.weight) / np.sqrt(array(layer.running_var) + layer.eps)
    return gain, array(layer.bias) - array(layer.running_mean) * gain
