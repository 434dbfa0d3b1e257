"""Clusters in the residuals of any model: parameters, fitting, and what is kept.

Here belongs the class that users meet. The map is `estimation`'s, and whether its factors stay
`models.families.residuals`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, Lt

from models.arrays import BoolArray, Float64Array, FloatArray
from models.families.base import ModelState
from models.families.residual_som.estimation import Map, means_of_others, organise
from models.families.residuals import Fraction, FurtherFactors, Histories, ProvenFactors, Trial, parts_of
from models.panel import Panel
from models.statistics.rowwise import ordered_product
from schemas.base import Name
from schemas.errors import ConfigError, ModelError

_STOCKS_PER_NODE = 3


class ResidualSOM(ProvenFactors):
    """The factors of another model, and clusters of its residuals: the nodes of a self-organising map.

    Stocks are laid on a grid by the histories of their residuals e = r - X f in the mask, each over its root mean
    square s: those that move together come to lie on one node, like nodes beside each other (Kohonen 2013, Essentials
    of the self-organizing map, Neural Networks 37). Each node is a factor. The loading of a stock on node j is

        B_ij = s_i h_ij b_ij / c

    with its membership h_ij, a normal kernel on the grid about its own node that sums to one, the slope b_ij of its
    history on the mean history of the other stocks of the node, and c the root mean square of all s. So what is said of
    a stock is the mean of what the nodes about it say; a stock that moves with nobody has loadings near zero. A factor
    return is c times the mean of e / s of the stocks about its node, weighted by the kernel: the node's portfolio.

    Memberships are learnt by ticker and fixed at the fit. What characteristics say of a stock is left to models
    that look at them, such as `ResidualNetwork`; a cluster that they do not show, such as a trade or a supply chain,
    only histories can tell. So a stock with too few residuals at the fit has loadings of zero until the next one, and
    the factors of the other model.

    On a map of the first dates with residuals the last ones are tried: there each residual is explained by the factor
    returns of the other stocks alone, and a test of Diebold and Mariano compares the mean squares of each date with and
    without the factors. Above the level ``significance`` they are dropped: the model is the other model. If they stay
    the map is made of all dates.

    The map is a nonlinear summary of co-movement, as discrete as its grid. Nonlinear principal components, with
    continuous coordinates, are those of `ResidualPCA`.

    Parameters
    ----------
    of : str
        Name of the model of the run whose residuals are explained.
    rows : int
        Rows of the grid.
    columns : int
        Columns of the grid.
    width : float
        Width of the kernel on the grid once the map is organised, in steps.
    min_observations : int
        Fewest residuals of a stock on the map.
    test_fraction : float
        Share of the dates, the last ones, on which the further factors are tried.
    significance : float
        Level of the test by which they stay.
    adds : bool, optional
        Whether further factors are in the model, whatever the test says. Default: as it says at the first fit.

    Attributes
    ----------
    node_ : xarray.DataArray or None
        (ticker,) the node of each stock of the map, counted from 0 row by row; None if the factors are not in the
        model.

    Examples
    --------
    >>> from models import PCA, ResidualSOM
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> base = PCA(n_factors=1).fit(panel)
    >>> model = ResidualSOM("pca", rows=1, columns=2).on(base).fit(panel)
    >>> model.factors_[0]
    'factor_1'
    """

    kind: ClassVar[str] = "residual_som"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "node": "node of the map on which the residuals of the stock lie, counted from 0 row by row"
    }
    effort: ClassVar[int] = 3

    def __init__(
        self,
        of: Name,
        rows: Annotated[int, Ge(1), Le(10)] = 3,
        columns: Annotated[int, Ge(1), Le(10)] = 3,
        width: Annotated[float, Gt(0.0), Le(2.0)] = 0.5,
        min_observations: Annotated[int, Ge(20)] = 60,
        test_fraction: Fraction = 0.25,
        significance: Annotated[float, Gt(0.0), Lt(1.0)] = 0.01,
        adds: bool | None = None,
    ) -> None:
        self.of = of
        self.rows = rows
        self.columns = columns
        self.width = width
        self.min_observations = min_observations
        self.test_fraction = test_fraction
        self.significance = significance
        self.adds = adds

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit the map to the residuals in ``panel.mask``, and try what it shows.

        Raises
        ------
        ConfigError
            If the grid has one node.
        ModelError
            If no fitted model was given, or dates or stocks are too few.
        """
        if self.rows * self.columns < 2:
            raise ConfigError("A self-organising map of one node has nothing to organise: give more rows or columns.")
        left = self._left(panel)
        learning, trying = parts_of(left, (self.test_fraction,))
        trial = Trial.of(self._organised(learning), trying)
        return self._decide(trial, self._organised(left), left)

    @property
    def node_(self) -> xr.DataArray | None:
        """(ticker,) node of each stock of the map; None if the factors are not in the model."""
        return self._further.map["node_of"] if isinstance(self._further, _Nodes) else None

    @classmethod
    def _part(cls) -> type[FurtherFactors]:
        return _Nodes

    def _organised(self, left: Panel) -> _Nodes:
        histories = Histories.of(left, self.min_observations)
        n_nodes = self.rows * self.columns
        if len(histories.tickers) < _STOCKS_PER_NODE * n_nodes:
            raise ModelError(
                f"A map of {n_nodes} nodes needs {_STOCKS_PER_NODE * n_nodes} stocks with "
                f"min_observations={self.min_observations} residuals; the panel has {len(histories.tickers)}. Give a "
                "smaller grid or more dates, or lower min_observations."
            )
        found = organise(histories.values, self.rows, self.columns, self.width)
        return _Nodes.of(histories.tickers, found, histories.scale)


class _Nodes(FurtherFactors):
    """Factors of residuals that are means of the stocks about the nodes of a map."""

    map: xr.Dataset
    _rotation: FloatArray

    @classmethod
    def of(cls, tickers: list[str], found: Map, scale: FloatArray) -> Self:
        """Take a map of stocks, whose residuals have root mean squares (ticker,)."""
        by_node = {name: (("ticker", "node"), getattr(found, name)) for name in ("weights", "memberships", "slopes")}
        own = {"node_of": ("ticker", found.node), "scale": ("ticker", scale)}
        return cls._from(xr.Dataset(by_node | own, coords={"ticker": tickers}), np.eye(found.weights.shape[1]))

    @classmethod
    def _from(cls, found: xr.Dataset, rotation: FloatArray) -> Self:
        factors = cls()
        factors.map, factors._rotation = found, rotation
        factors._name()
        return factors

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return s h b / c as (date, ticker, factor); NaN for stocks that the map does not have."""
        there = self.map.reindex(ticker=panel.tickers)
        own = there["memberships"].values * there["slopes"].values * there["scale"].values[:, None] / self._unit
        turned = np.full(own.shape, np.nan)
        known = np.isfinite(own).all(axis=1)
        turned[known] = ordered_product(own[known], self._rotation)
        return self._over_tickers(panel, np.broadcast_to(turned, (len(panel.dates), *turned.shape)))

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Return c times the mean of e / s about each node: (date, factor), NaN where nobody near is known."""
        parts = []
        for block in panel.blocks():
            filled, known, weights = self._entering(block)
            means = np.full((len(filled), self._n_factors), np.nan)
            for date in np.flatnonzero(known.any(axis=1)):
                inside = known[date]
                near = np.ascontiguousarray(weights[inside])
                mass = near.sum(axis=0)
                if (mass > 0.0).all():
                    means[date] = near.T @ filled[date, inside] / mass
            parts.append(self._unit * ordered_product(means, self._rotation))
        return self._over_dates(panel, np.concatenate(parts))

    def losses(self, panel: Panel) -> Float64Array:
        """Mean squares of e / s without factors and with them; see the base class."""
        parts = []
        for block in panel.blocks():
            filled, known, weights = self._entering(block)
            there = self.map.reindex(ticker=block.tickers)
            said = np.nan_to_num((there["memberships"] * there["slopes"]).values)
            left = filled.copy()
            for own, slope in zip(weights.T, said.T, strict=True):
                left -= slope * means_of_others(filled, known, own)
            count = known.sum(axis=1)
            sums = np.column_stack([np.square(each).sum(axis=1, where=known) for each in (filled, left)])
            parts.append(np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], np.nan))
        return np.concatenate(parts)

    def state(self) -> ModelState:
        """Keep the map, rotation and premia."""
        arrays = {str(name): array.values for name, array in self.map.data_vars.items()}
        own = {"rotation": self._rotation, "premia": self._premia}
        return ModelState(arrays | own, {"tickers": self.map["ticker"].values.tolist()})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:  # noqa: ARG003  # it has no parameters
        """Rebuild the factors."""
        arrays = {
            name: (("ticker", "node")[: array.ndim], array)
            for name, array in state.arrays.items()
            if name not in ("rotation", "premia")
        }
        factors = cls._from(xr.Dataset(arrays, coords={"ticker": state.meta["tickers"]}), state.arrays["rotation"])
        factors.premia_ = state.arrays["premia"]
        return factors

    @property
    def _n_factors(self) -> int:
        return int(self._rotation.shape[1])

    @property
    def _unit(self) -> float:
        return float(np.sqrt(np.square(self.map["scale"].values).mean()))

    def _entering(self, block: Panel) -> tuple[Float64Array, BoolArray, Float64Array]:
        """Return e / s (date, ticker), zero where not known, where it is, and weights (ticker, node)."""
        there = self.map.reindex(ticker=block.tickers)
        z = np.where(block.mask.values, block.returns.values, np.nan) / there["scale"].values
        known = np.isfinite(z)
        return np.where(known, z, 0.0), known, np.nan_to_num(there["weights"].values)

    def _turn(self, rotation: FloatArray) -> None:
        self._rotation = self._rotation @ rotation
