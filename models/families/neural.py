"""What families that train networks share: layers drawn from one seed, and the epoch that did best on validation.

Here belongs what knows nothing of a model. Architectures, losses and what a network is trained on belong in the module
of each family.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from models.arrays import Float64Array, FloatArray, NamedArrays, under
from schemas.errors import ModelError

CHUNK = 16_384
"""Rows that are pushed through networks at once."""


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a layer that is not initialised, so that the process-wide random numbers are left alone."""
    return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")


def draw(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of linear layers uniformly within 1 / sqrt(inputs) from the generator, and from nothing else."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def array(tensor: torch.Tensor) -> Float64Array:
    """Return what a tensor holds, in float64."""
    values: Float64Array = tensor.detach().numpy().astype(np.float64)
    return values


class Layers(Protocol):
    """A trained network as plain arrays."""

    @property
    def weights(self) -> tuple[FloatArray, ...]:
        """Per layer (input, output)."""

    @property
    def biases(self) -> tuple[FloatArray, ...]:
        """Per layer (output,)."""


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Feed-forward networks of equal shape, side by side; ReLU follows every layer but the last.

    Attributes
    ----------
    weights : tuple of numpy.ndarray
        Per layer (member, input, output) float32.
    biases : tuple of numpy.ndarray
        Per layer (member, 1, output) float32.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    @classmethod
    def stack(cls, members: Sequence[Layers]) -> Self:
        """Put networks of equal shape side by side."""
        weights = zip(*(member.weights for member in members), strict=True)
        biases = zip(*(member.biases for member in members), strict=True)
        return cls(
            weights=tuple(np.stack(layer) for layer in weights),
            biases=tuple(np.stack(layer)[:, None, :] for layer in biases),
        )

    def outputs(self, characteristics: FloatArray) -> FloatArray:
        """Return what each member gives for each row, as (member, row, output); float32 if the rows are."""
        layer = characteristics[None]
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if depth:
                layer = np.maximum(layer, np.float32(0.0))
            layer = layer @ weight + bias
        return layer

    def __call__(self, characteristics: FloatArray) -> FloatArray:
        """Return the sum over members for each row, as (row, output) float32, some rows at a time."""
        loadings = np.empty((len(characteristics), self.weights[-1].shape[2]), dtype=np.float32)
        for start in range(0, len(characteristics), CHUNK):
            rows = slice(start, start + CHUNK)
            loadings[rows] = self.outputs(characteristics[rows]).sum(axis=0)
        return loadings

    def arrays(self) -> NamedArrays:
        """Return everything by name, for `from_arrays`."""
        return named_layers(self.weights, self.biases)

    @classmethod
    def from_arrays(cls, arrays: NamedArrays) -> Self:
        """Rebuild from `arrays`."""
        return cls(*layers_of(arrays))

    def mapped(self, matrices: FloatArray) -> Self:
        """Multiply the output of each member by its matrix (member, output, output), in the last layer."""
        return type(self)(
            weights=(*self.weights[:-1], (self.weights[-1] @ matrices).astype(np.float32)),
            biases=(*self.biases[:-1], (self.biases[-1] @ matrices).astype(np.float32)),
        )


def named_layers(weights: Sequence[FloatArray], biases: Sequence[FloatArray]) -> NamedArrays:
    """Name the layers of a network, for `layers_of`."""
    return {f"weight_{n}": one for n, one in enumerate(weights)} | {f"bias_{n}": one for n, one in enumerate(biases)}


def layers_of(arrays: NamedArrays) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return weights and biases from arrays that `named_layers` has named, whatever others lie beside them."""
    weights, biases = under("weight_", arrays), under("bias_", arrays)
    return tuple(weights[str(n)] for n in range(len(weights))), tuple(biases[str(n)] for n in range(len(biases)))


class BestEpoch:
    """The weights of the epoch with the lowest validation loss, and how long ago it was.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    patience : int
        Epochs without a lower loss after which training is over.
    """

    def __init__(self, network: nn.Module, patience: int) -> None:
        self.network = network
        self.patience = patience
        self.loss = math.inf
        self._epoch = 0
        self._weights = network.state_dict()

    def see(self, epoch: int, loss: float) -> bool:
        """Return whether no earlier epoch had so low a loss; if so, keep the weights that the network has now."""
        better = loss < self.loss
        if better:
            self.loss, self._epoch = loss, epoch
            self._weights = copy.deepcopy(self.network.state_dict())
        return better

    def over(self, epoch: int) -> bool:
        """Whether patience has run out."""
        return epoch - self._epoch >= self.patience

    def restore(self) -> None:
        """Give the network its best weights back."""
        self.network.load_state_dict(self._weights)


def check_finite(seed: int, epoch: int, train_loss: float, validation_loss: float) -> None:
    """Raise ModelError if a loss is not a number."""
    if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
        raise ModelError(
            f"The loss of seed {seed} is not finite at epoch {epoch} (training {train_loss}, validation "
            f"{validation_loss}): lower learning_rate, or look for absurd returns in the panel."
        )
