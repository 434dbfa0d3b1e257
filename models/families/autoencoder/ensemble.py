"""How the networks of several seeds become one factor model, in plain arrays.

Here belong the reduction of their average to K factors, and inference by the trained networks side by side.
It knows nothing of training.

Each member s has its own latent coordinates: (beta_s A, A^-1 f_s) is the same model for every invertible A,
so that neither loadings nor factors can be averaged as they are. What can be averaged is the systematic
return,

    (1/S) sum_s beta_s' f_s = B F',   B = [beta_1 ... beta_S] / S   and   F = [f_1 ... f_S],

which is a factor model with S K factors. `Ensemble.of` takes the K-factor model nearest to it in mean square,
by the square-root method of balanced truncation (Laub et al. 1987): with G = E[B'B / n] = C C', H = E[F F'] =
D D' and the singular value decomposition C'D = U s V',

    loadings X = B P with P = D V_K / s_K,   factors f = Q'F with Q = C U_K,

so that E[X'X / n] = P'G P = I. No member is a reference and no matrix is inverted, and since all f_s are
linear in the managed portfolios, so are the reduced factors: their weights are [W_1 ... W_S] Q.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from models.arrays import FloatArray
from models.families.autoencoder.networks import Member
from models.families.neural import CHUNK, SideBySide
from models.panel import Panel
from models.statistics.rowwise import ordered_product

_COLLAPSED = 1e-4  # smallest singular value of a member that has K factors, relative to its largest


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The K-factor model of all members: everything that a fitted autoencoder knows, in float32.

    Attributes
    ----------
    networks : SideBySide
        From characteristics to loadings.
    factor_weight : numpy.ndarray
        (portfolio, factor) float32, from managed portfolios to factors.
    factor_bias : numpy.ndarray
        (factor,) float32; zero unless the target is one_ahead.
    """

    networks: SideBySide
    factor_weight: FloatArray
    factor_bias: FloatArray

    @classmethod
    def of(cls, members: Sequence[Member], gram: FloatArray, portfolios: FloatArray) -> Self:
        """Take the nearest K-factor model to the average of the members; see the module for the formula.

        Parameters
        ----------
        members : sequence of Member
            Trained on the same panel.
        gram : numpy.ndarray
            Their `mean_gram`.
        portfolios : numpy.ndarray
            (date, portfolio) finite inputs of the factor network over the training dates.
        """
        n_members, n_factors = len(members), len(members[0].factor_bias)
        balance = _Balance.of(gram / n_members**2, member_factors(members, portfolios))
        to_loadings = balance.factor_root @ balance.right[:, :n_factors] / balance.singular[:n_factors]
        to_factors = balance.loading_root @ balance.left[:, :n_factors]
        weight = np.hstack([member.factor_weight for member in members]) @ to_factors
        bias = np.hstack([member.factor_bias for member in members]) @ to_factors
        return cls(
            networks=SideBySide.stack(members).mapped(to_loadings.reshape(n_members, n_factors, n_factors) / n_members),
            factor_weight=weight.astype(np.float32),
            factor_bias=bias.astype(np.float32),
        )

    def factors(self, portfolios: FloatArray) -> FloatArray:
        """Return (date, factor) float64 from (date, portfolio)."""
        return ordered_product(portfolios, self.factor_weight) + self.factor_bias

    def rotated(self, rotation: FloatArray) -> Ensemble:
        """Return the same model with loadings X R and factors R' f for an orthogonal (factor, factor) R."""
        n_members = len(self.networks.weights[-1])
        return Ensemble(
            networks=self.networks.mapped(np.repeat(rotation[None], n_members, axis=0)),
            factor_weight=(self.factor_weight @ rotation).astype(np.float32),
            factor_bias=(self.factor_bias @ rotation).astype(np.float32),
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything by name, for `from_arrays`."""
        layers = enumerate(zip(self.networks.weights, self.networks.biases, strict=True))
        arrays = {"factor_weight": self.factor_weight, "factor_bias": self.factor_bias}
        for depth, (weight, bias) in layers:
            arrays |= {f"weight_{depth}": weight, f"bias_{depth}": bias}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild from `arrays`."""
        depths = range(sum(name.startswith("weight_") for name in arrays))
        networks = SideBySide(
            weights=tuple(arrays[f"weight_{depth}"] for depth in depths),
            biases=tuple(arrays[f"bias_{depth}"] for depth in depths),
        )
        return cls(networks, arrays["factor_weight"], arrays["factor_bias"])


def mean_gram(members: Sequence[Member], panel: Panel) -> FloatArray:
    """Return E[beta'beta / n] of all members side by side, (member x factor, member x factor).

    The average is over the dates of the panel that have an estimation universe; in float64, block by block.
    """
    networks = SideBySide.stack(members)
    size = len(members) * len(members[0].factor_bias)
    gram, n_dates = np.zeros((size, size)), 0
    for block in panel.blocks():
        mask = block.mask.values
        counts = mask.sum(axis=1)
        n_dates += int((counts > 0).sum())
        characteristics = block.characteristics.values[mask]
        share = np.repeat(1.0 / np.maximum(counts, 1), counts)[:, None]
        for start in range(0, len(characteristics), CHUNK):
            rows = slice(start, start + CHUNK)
            outputs = np.moveaxis(networks.outputs(characteristics[rows]), 0, 1)
            flat = outputs.reshape(len(outputs), size).astype(np.float64)
            gram += flat.T @ (flat * share[rows])
    return gram / max(n_dates, 1)


def member_factors(members: Sequence[Member], portfolios: FloatArray) -> FloatArray:
    """Return the factors of all members side by side, (date, member x factor), from (date, portfolio)."""
    return np.hstack([portfolios @ member.factor_weight + member.factor_bias for member in members])


def collapsed(members: Sequence[Member], gram: FloatArray, portfolios: FloatArray) -> list[int]:
    """Return the positions of members whose systematic returns have fewer than K factors."""
    n_factors = len(members[0].factor_bias)
    found = []
    for position, member in enumerate(members):
        own = slice(position * n_factors, (position + 1) * n_factors)
        singular = _Balance.of(gram[own, own], member_factors([member], portfolios)).singular
        if not singular[-1] > _COLLAPSED * singular[0]:
            found.append(position)
    return found


@dataclass(frozen=True, eq=False)
class _Balance:
    """C, D and U s V' = C'D of the module's formula."""

    loading_root: FloatArray
    factor_root: FloatArray
    left: FloatArray
    singular: FloatArray
    right: FloatArray

    @classmethod
    def of(cls, gram: FloatArray, factors: FloatArray) -> Self:
        loading_root, factor_root = _root(gram), _root(factors.T @ factors / len(factors))
        left, singular, right = np.linalg.svd(loading_root.T @ factor_root)
        return cls(loading_root, factor_root, left, singular, right.T)


def _root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(matrix)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
