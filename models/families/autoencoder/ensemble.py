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

so that E[X'X / n] = P'G P = I. No member is a reference and no matrix is inverted, and where all f_s are
linear in the managed portfolios, so are the reduced factors: their weights are [W_1 ... W_S] Q. Where f_s are the
regressions of each date on beta_s, the model keeps X alone, and its factors are the regressions on X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from models.arrays import FloatArray, NamedArrays
from models.families.autoencoder.networks import Layers, Member
from models.families.neural import CHUNK, SideBySide
from models.panel import Panel
from models.statistics.features import of_characteristics
from models.statistics.gram import solve_gram
from models.statistics.rowwise import ordered_product

_COLLAPSED = 1e-4  # smallest singular value of a member that has K factors, relative to its largest


class LoadingsNetworks(SideBySide):
    """The loadings networks of the members; their outputs add up."""

    def rotated(self, rotation: FloatArray) -> Self:
        """Turn the sum of the outputs by an orthogonal (factor, factor) R."""
        return self.mapped(np.repeat(rotation[None], len(self.weights[-1]), axis=0))

    def of_panel(self, panel: Panel, chars: Sequence[str]) -> FloatArray:
        """Return loadings (date, ticker, factor) float32, block by block; NaN where a stock is not covered.

        Raises
        ------
        ModelError
            The panel lacks one of the characteristics, which the networks take in this order.
        """
        return of_characteristics(panel, chars, self, self.weights[-1].shape[2], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The K-factor model of all members: everything that a fitted autoencoder knows, in float32.

    Attributes
    ----------
    networks : LoadingsNetworks
        From characteristics to loadings.
    factor_weight : numpy.ndarray
        (portfolio, factor) float32, from managed portfolios or stocks to factors; of none if factors are profiled.
    factor_bias : numpy.ndarray
        (factor,) float32; zero unless the target is one_ahead or factors are linear in the returns of stocks.
    """

    networks: LoadingsNetworks
    factor_weight: FloatArray
    factor_bias: FloatArray

    @classmethod
    def of(cls, members: Sequence[Member], gram: FloatArray, factors: FloatArray) -> Self:
        """Take the nearest K-factor model to the average of the members; see the module for the formula.

        Parameters
        ----------
        members : sequence of Member
            Trained on the same panel.
        gram : numpy.ndarray
            Their `mean_gram`.
        factors : numpy.ndarray
            (date, member x factor) finite factors of all members over the training dates, side by side.
        """
        networks, to_factors = nearest(members, gram, factors)
        weight = np.hstack([member.factor_weight for member in members]) @ to_factors
        bias = np.hstack([member.factor_bias for member in members]) @ to_factors
        return cls(
            networks=networks,
            factor_weight=weight.astype(np.float32),
            factor_bias=bias.astype(np.float32),
        )

    def factors(self, portfolios: FloatArray) -> FloatArray:
        """Return (date, factor) float64 from (date, portfolio)."""
        return ordered_product(portfolios, self.factor_weight) + self.factor_bias

    def rotated(self, rotation: FloatArray) -> Ensemble:
        """Return the same model with loadings X R and factors R' f for an orthogonal (factor, factor) R."""
        return Ensemble(
            networks=self.networks.rotated(rotation),
            factor_weight=(self.factor_weight @ rotation).astype(np.float32),
            factor_bias=(self.factor_bias @ rotation).astype(np.float32),
        )

    def arrays(self) -> NamedArrays:
        """Return everything by name, for `from_arrays`."""
        return {"factor_weight": self.factor_weight, "factor_bias": self.factor_bias} | self.networks.arrays()

    @classmethod
    def from_arrays(cls, arrays: NamedArrays) -> Self:
        """Rebuild from `arrays`."""
        return cls(LoadingsNetworks.from_arrays(arrays), arrays["factor_weight"], arrays["factor_bias"])


def nearest(members: Sequence[Layers], gram: FloatArray, factors: FloatArray) -> tuple[LoadingsNetworks, FloatArray]:
    """Take the nearest K-factor model to the average of the members; see the module for the formula.

    Parameters
    ----------
    members : sequence of Layers
        Trained on the same panel.
    gram : numpy.ndarray
        Their `mean_gram`.
    factors : numpy.ndarray
        (date, member x factor) finite factors of all members over the training dates.

    Returns
    -------
    networks : LoadingsNetworks
        Whose sum is X.
    to_factors : numpy.ndarray
        (member x factor, factor) Q: the reduced factors are ``factors @ to_factors``.
    """
    n_members, n_factors = len(members), members[0].n_factors
    balance = _Balance.of(gram / n_members**2, factors)
    to_loadings = balance.factor_root @ balance.right[:, :n_factors] / balance.singular[:n_factors]
    to_factors: FloatArray = balance.loading_root @ balance.left[:, :n_factors]
    networks = LoadingsNetworks.stack(members).mapped(to_loadings.reshape(n_members, n_factors, n_factors) / n_members)
    return networks, to_factors


def mean_gram(members: Sequence[Layers], panel: Panel) -> FloatArray:
    """Return E[beta'beta / n] of all members side by side, (member x factor, member x factor).

    The average is over the dates of the panel that have an estimation universe; in float64, block by block.
    """
    networks = LoadingsNetworks.stack(members)
    size = len(members) * members[0].n_factors
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


def profiled_factors(members: Sequence[Layers], panel: Panel) -> FloatArray:
    """Return the regressions of r[t] on the loadings of each member, side by side, (date, member x factor) float64.

    Of the dates of the panel with more stocks than factors. Collinear loadings have the solution of the smallest norm.
    """
    networks = LoadingsNetworks.stack(members)
    n_factors = members[0].n_factors
    parts: list[FloatArray] = []
    for block in panel.blocks():
        mask, returns, rows = block.mask.values, block.returns.values, block.characteristics.values
        for date in np.flatnonzero(mask.sum(axis=1) > n_factors):
            loadings = networks.outputs(rows[date, mask[date]]).astype(np.float64)
            transposed = loadings.transpose(0, 2, 1)
            moment = transposed @ returns[date, mask[date]].astype(np.float64)
            parts.append(solve_gram(transposed @ loadings, moment[..., None])[0].reshape(-1))
    return np.array(parts)


def collapsed(members: Sequence[Layers], gram: FloatArray, factors: FloatArray) -> list[int]:
    """Return the positions of members whose systematic returns have fewer than K factors; see `nearest`."""
    n_factors = members[0].n_factors
    found = []
    for position in range(len(members)):
        own = slice(position * n_factors, (position + 1) * n_factors)
        singular = _Balance.of(gram[own, own], factors[:, own]).singular
        if not singular[-1] > _COLLAPSED * singular[0]:
            found.append(position)
    return found


def principal_axes(factor_returns: FloatArray) -> FloatArray:
    """Rotation of (date, factor) to uncorrelated factors with positive means, the largest variance first."""
    covariance = np.atleast_2d(np.cov(factor_returns.T))
    axes = np.linalg.eigh(covariance)[1][:, ::-1]
    return axes * np.where(factor_returns.mean(axis=0) @ axes < 0.0, -1.0, 1.0)


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
