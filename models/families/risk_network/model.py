"""Factors with nonlinear loadings, learnt for risk out of sample: parameters, fitting, and the choice of weight.

Here belongs the class that users meet. The term of the loss is `loss`'s, the network, its training and what becomes of
several are `models.families.profiled`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from models.arrays import Float64Array, FloatArray
from models.families.autoencoder.ensemble import LoadingsNetworks
from models.families.autoencoder.networks import EpochReport, Layers, LoadingsNetwork
from models.families.autoencoder.training import DescentOptions
from models.families.base import FactorModel, ModelState, Report
from models.families.profiled import ProfiledFactors, learn
from models.families.residuals import Fraction, parts_of
from models.families.risk_network.loss import RiskLoss, RiskRows
from models.panel import Panel
from schemas.errors import ModelError


class RiskNetwork(FactorModel):
    """Loadings by a network of characteristics, learnt from what is left of returns and from the risk of portfolios.

    r[t] = g(C[t-1]) f[t] + u[t] with a feed-forward network g (ReLU, batch normalisation) and f[t] = (G'G)^-1 G'r[t],
    least squares given the loadings (variable projection, Golub and Pereyra 1973). The loss is the variance of u and
    a weight times QLIKE, log s2 + r2 / s2 (Patton 2011), of portfolios: Omega and the variances of u are those of
    ``window`` dates, s2 = w'X Omega X'w + w'Dw and r2 are those of the ``ahead`` dates after them. Its gradient goes
    through X, Omega and D. So what it rewards is a forecast of risk, not a fit: a factor that explains little of all
    squared returns and much of the risk of a long-short or minimum-variance portfolio counts by the latter.

    Portfolios are single stocks, the equally weighted market, random long-only and long-short ones, sorts on
    characteristics and on products of two, and the minimum-variance portfolio of the model itself; each kind counts the
    same. The variance of the last one alone would leave the level of all others open.

    The last dates of the panel teach nothing: on them training stops, and the weight is chosen whose networks have the
    lowest QLIKE, mean over kinds and seeds. Every seed trains a network for each weight; those of the chosen weight
    become the nearest model of K factors (`models.families.autoencoder.ensemble`), with loadings of E[X'X / n] = I and
    uncorrelated factors. The model states no Omega and no specific variance of its own.

    Parameters
    ----------
    n_factors : int
        Number of factors K.
    hidden : tuple of int
        Widths of the hidden layers of the network.
    risk_weights : tuple of float
        Weights of QLIKE beside the variance of residuals, in units of the mean squared return, one of which is chosen.
        Zero trains for the residuals alone.
    window : int
        Dates of which Omega and specific variances are made within training.
    ahead : int
        Dates after these whose returns are compared with them.
    n_portfolios : int
        Random long-only, long-short and sorted portfolios of each date, so many of each.
    learning_rate : float
        Step of Adam, by which the networks are trained.
    max_epochs : int
        Most passes over the dates; the weights of the pass with the lowest loss on the dates for stopping count.
    patience : int
        Passes without a lower loss after which training stops.
    validation_fraction : float
        Share of the dates, the last ones, on which training stops and the weight is chosen.
    seeds : tuple of int
        One network of the ensemble per seed.

    Attributes
    ----------
    risk_weight_ : float
        The chosen weight.
    validated_qlike_ : xarray.DataArray
        (penalty,) mean QLIKE of each weight on the last dates.
    risk_gain_ : float, optional
        QLIKE of weight 0 less that of the chosen one; None if 0 is not among the weights.
    history_ : list of EpochReport
        The training of every seed with the chosen weight.

    Examples
    --------
    >>> from models import RiskNetwork
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = RiskNetwork(n_factors=1, hidden=(4,), risk_weights=(0.0,), max_epochs=2).fit(panel)
    >>> model.loadings(panel).dims
    ('date', 'ticker', 'factor')
    """

    kind: ClassVar[str] = "risk_network"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "risk_weight": "weight of QLIKE in the loss that did best on the last training dates",
        "validated_qlike": "mean QLIKE of portfolios on the last training dates, along the weights of QLIKE in the "
        "loss; returns over their root mean square",
        "risk_gain": "QLIKE of portfolios without a weight of QLIKE in the loss less that with the chosen one, on the "
        "last training dates",
    }
    latent: ClassVar[bool] = True
    effort: ClassVar[int] = 200

    def __init__(
        self,
        n_factors: Annotated[int, Ge(1), Le(50)] = 5,
        hidden: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), MaxLen(3)] = (32,),
        risk_weights: Annotated[tuple[Annotated[float, Ge(0.0)], ...], MinLen(1)] = (0.0, 0.1, 1.0),
        window: Annotated[int, Ge(2)] = 63,
        ahead: Annotated[int, Ge(1)] = 10,
        n_portfolios: Annotated[int, Ge(1)] = 10,
        learning_rate: Annotated[float, Gt(0.0)] = 1e-2,
        max_epochs: Annotated[int, Ge(1)] = 50,
        patience: Annotated[int, Ge(1)] = 10,
        validation_fraction: Fraction = 0.2,
        seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2),
    ) -> None:
        self.n_factors = n_factors
        self.hidden = hidden
        self.risk_weights = risk_weights
        self.window = window
        self.ahead = ahead
        self.n_portfolios = n_portfolios
        self.learning_rate = learning_rate
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seeds = seeds

    risk_weight_: float
    validated_qlike_: xr.DataArray
    risk_gain_: float | None
    history_: list[EpochReport]
    _profiled: ProfiledFactors

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Train every seed with every weight, one after the other, and combine those of the best weight.

        Raises
        ------
        ModelError
            If the panel has no characteristics or too few dates, the loss is not finite, or every seed learnt fewer
            than K factors.
        """
        rows = self._rows(panel)
        return self._combine(panel, [self._trained(rows, piece) for piece in self.pieces()])

    def pieces(self) -> tuple[str, ...]:
        """Return pairs of the place of a weight and a seed: one network each."""
        return tuple(f"{place}-{seed}" for place in range(len(self.risk_weights)) for seed in self.seeds)

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:
        """Train the network of one weight and seed; see the base class. One line is reported for every epoch."""
        return self._trained(self._rows(panel), piece, report).state()

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:
        """Combine the networks of the best weight; see the base class."""
        return self._combine(panel, [_Trained.from_state(piece) for piece in pieces])

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return g(C[t-1]) as (date, ticker, factor) float32; NaN where not covered.

        Raises
        ------
        ModelError
            If the panel lacks a characteristic that the model was fitted to.
        """
        self._check_fitted()
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(self._profiled.loadings(panel), coords, ("date", "ticker", "factor"), name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Regress returns on loadings at each date: (date, factor), NaN where stocks are too few or alike."""
        self._check_fitted()
        coords = {"date": panel.dates, "factor": self.factors_}
        values = self._profiled.factor_returns(panel)
        return xr.DataArray(values, coords, ("date", "factor"), name="factor_returns")

    def state(self) -> ModelState:
        """Keep the networks, premia, what each weight did and the history."""
        self._check_fitted()
        arrays = {"premia": self._premia, "validated_qlike": self.validated_qlike_.values}
        history = [asdict(report) for report in self.history_]
        return ModelState(
            self._profiled.networks.arrays() | arrays, {"chars": self._profiled.chars, "history": history}
        )

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        model._choose(state.arrays["validated_qlike"])
        model._adopt(ProfiledFactors(LoadingsNetworks.from_arrays(state.arrays), list(state.meta["chars"])))
        model.premia_ = state.arrays["premia"]
        model.history_ = [EpochReport(**report) for report in state.meta["history"]]
        return model

    def _rows(self, panel: Panel) -> RiskRows:
        if not panel.chars:
            raise ModelError("A network of loadings needs characteristics, and the panel has none: add some.")
        rows = RiskRows.of(*parts_of(panel, (self.validation_fraction,)))
        if rows.n_train < self.window + self.ahead:
            raise ModelError(
                f"{rows.n_train} dates to learn from are fewer than window={self.window} and ahead={self.ahead} "
                "together: lower these, or give a longer panel."
            )
        return rows

    def _trained(self, rows: RiskRows, piece: str, report: Report | None = None) -> _Trained:
        place, seed = map(int, piece.split("-", 1))
        options = DescentOptions(
            learning_rate=self.learning_rate, l1=0.0, max_epochs=self.max_epochs, patience=self.patience
        )
        told = None if report is None else lambda epoch: report(f"risk weight {self.risk_weights[place]:g}, {epoch}")
        risk: list[RiskLoss] = []

        def objective(network: LoadingsNetwork, rows: RiskRows) -> RiskLoss:
            generator = torch.Generator().manual_seed(seed)
            sizes = (self.window, self.ahead, self.n_portfolios)
            risk.append(RiskLoss(network, rows, self.risk_weights[place], *sizes, generator))
            return risk[0]

        layers = learn(rows, self.n_factors, tuple(self.hidden), options, seed, told, objective)
        with torch.no_grad():
            return _Trained(layers, risk[0].validation_risk().numpy())

    def _combine(self, panel: Panel, trained: Sequence[_Trained]) -> Self:
        """Become the fitted model of the networks of the weight that did best."""
        losses = np.array([each.losses for each in trained]).reshape(len(self.risk_weights), len(self.seeds), -1)
        place = self._choose(losses.mean(axis=(1, 2)))
        members = [each.layers for each in trained[place * len(self.seeds) : (place + 1) * len(self.seeds)]]
        profiled = ProfiledFactors.nearest(members, panel)
        if profiled is None:
            raise ModelError(
                f"Every seed {tuple(self.seeds)} learnt fewer than {self.n_factors} distinct factors; lower n_factors "
                "or learning_rate, or give hidden layers more units."
            )
        self._adopt(profiled)
        self.history_ = [report for member in members for report in member.history]
        returns = profiled.factor_returns(panel)
        self.premia_ = returns[np.isfinite(returns).all(axis=1)].mean(axis=0)
        return self

    def _choose(self, losses: Float64Array) -> int:
        """Take the weight of the lowest QLIKE (weight,), and remember all."""
        place = int(np.argmin(losses))
        weights = list(self.risk_weights)
        self.risk_weight_ = float(weights[place])
        self.validated_qlike_ = xr.DataArray(losses, {"penalty": weights}, ("penalty",))
        self.risk_gain_ = float(losses[weights.index(0.0)] - losses[place]) if 0.0 in weights else None
        return place

    def _adopt(self, profiled: ProfiledFactors) -> None:
        self._profiled = profiled
        self.factors_ = [f"factor_{k + 1}" for k in range(profiled.n_factors)]

    def _turn(self, rotation: FloatArray) -> None:
        self._profiled = self._profiled.rotated(rotation)


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network and its loss (kind of portfolio,) on the last dates."""

    layers: Layers
    losses: Float64Array

    def state(self) -> ModelState:
        kept = self.layers.state()
        return ModelState(kept.arrays | {"losses": self.losses}, kept.meta)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        return cls(Layers.from_state(state), state.arrays["losses"])
