"""The two networks of the game, and what is left of the SDF's after it: plain arrays, and features of a model.

Here belong architectures, their initialisation from one seed, and inference. How they are trained belongs in
`training`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.arrays import Float64Array, FloatArray, NamedArrays, under
from models.families.base import ModelState
from models.families.neural import CHUNK, SideBySide, array, draw, layers_of, linear, named_layers
from models.statistics.features import Section, Units

_CHUNKS_IN_MEMORY = 64


class Players(nn.Module):
    """The SDF's weights w(C), and the conditions g(C) of the adversary.

    Both take standardised characteristics. w is a feed-forward network with ReLU, linear in the end; g is tanh of a
    linear layer, bounded as in Chen, Pelger and Zhu (2024).
    """

    def __init__(self, n_chars: int, hidden: Sequence[int], n_moments: int, generator: torch.Generator) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_chars
        for units in hidden:
            layers += [linear(width, units), nn.ReLU()]
            width = units
        self.sdf = nn.Sequential(*layers, linear(width, 1))
        self.adversary = nn.Sequential(linear(n_chars, n_moments), nn.Tanh())
        draw(self, generator)

    def weights(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return w (row,), some rows at a time; of many rows the hidden layers are made again for the gradient."""
        chunks = torch.split(inputs, CHUNK)
        remade = len(chunks) > _CHUNKS_IN_MEMORY
        parts = [checkpoint(self.sdf, chunk, use_reentrant=False) if remade else self.sdf(chunk) for chunk in chunks]
        return torch.cat(parts)[:, 0]

    def turn(self) -> None:
        """Change the sign of w."""
        for parameter in self.sdf[-1].parameters():
            parameter.data.neg_()

    def conditions(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return g (row, moment)."""
        conditions: torch.Tensor = self.adversary(inputs)
        return conditions


@dataclass(frozen=True, eq=False)
class Member:
    """One trained SDF network, as plain arrays.

    Attributes
    ----------
    weights, biases : tuple of numpy.ndarray
        Layers (input, output) and (output,), in float64; ReLU follows every one but the last, which gives w.
    """

    weights: tuple[Float64Array, ...]
    biases: tuple[Float64Array, ...]

    @classmethod
    def of(cls, network: nn.Sequential) -> Self:
        """Take the linear layers of a network."""
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        return cls(
            tuple(array(layer.weight).T.copy() for layer in layers), tuple(array(layer.bias).copy() for layer in layers)
        )

    def state(self) -> ModelState:
        """Return everything, for `from_state`."""
        return ModelState(named_layers(self.weights, self.biases))

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """Rebuild from `state`."""
        return cls(*layers_of(state.arrays))


@dataclass(frozen=True, eq=False)
class Hidden:
    """A constant, the characteristics in standard deviations, and the last hidden layers of all members.

    Attributes
    ----------
    units : Units
    networks : SideBySide
        Of the hidden layers alone.
    """

    units: Units
    networks: SideBySide

    @classmethod
    def of(cls, units: Units, members: Sequence[Member]) -> Self:
        """Put members side by side, without their last layers."""
        return cls(units, SideBySide.stack([Member(one.weights[:-1], one.biases[:-1]) for one in members]))

    @property
    def size(self) -> int:
        """Number of features."""
        return 1 + len(self.units.mean) + self.networks.biases[-1].size

    def __call__(self, rows: FloatArray) -> Float64Array:
        """Return (stock, feature) of (stock, char)."""
        u = self.units(rows)
        hidden = np.maximum(self.networks.outputs(u), 0.0)
        flat = np.moveaxis(hidden, 0, 1).reshape(len(u), -1)
        return np.concatenate([np.ones((len(u), 1)), u, flat], axis=1)

    def thetas(self, members: Sequence[Member]) -> Float64Array:
        """Return the weights (member, feature) on the features with which each member gives its w."""
        width = self.networks.weights[-1].shape[2]
        found = np.zeros((len(members), self.size))
        for place, member in enumerate(members):
            found[place, 0] = member.biases[-1][0]
            own = 1 + len(self.units.mean) + place * width
            found[place, own : own + width] = member.weights[-1][:, 0]
        return found

    def portfolios(self, sections: Sequence[Section]) -> Float64Array:
        """Return F[t] = sum_i phi(C_i) r_i / N as (date, feature)."""
        return np.array([section.returns @ self(section.rows) / len(section.rows) for section in sections])

    def arrays(self) -> NamedArrays:
        """Return all that `from_arrays` needs."""
        units = {f"units_{name}": value for name, value in vars(self.units).items()}
        return units | self.networks.arrays()

    @classmethod
    def from_arrays(cls, arrays: NamedArrays) -> Self:
        """Rebuild the features."""
        return cls(Units(**under("units_", arrays)), SideBySide.from_arrays(arrays))
