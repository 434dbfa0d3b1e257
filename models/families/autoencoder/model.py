"""The conditional autoencoder as a factor model: parameters, fitting, and what a fitted one answers.

Here belongs the class that users meet. Networks, training and the combination of seeds have modules of their
own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from models.arrays import FloatArray
from models.families.autoencoder.data import Factors, Target, TrainingData, factor_inputs, traded
from models.families.autoencoder.ensemble import (
    Ensemble,
    collapsed,
    mean_gram,
    member_factors,
    principal_axes,
    profiled_factors,
)
from models.families.autoencoder.networks import EpochReport, Member
from models.families.autoencoder.training import Callback, TrainingOptions, train
from models.families.base import FactorModel, ModelState, Report
from models.families.rotation import check_rotation
from models.panel import Panel
from models.statistics.gram import solve_gram
from models.statistics.rowwise import cross_sections
from schemas.errors import ModelError


class ConditionalAutoencoder(FactorModel):
    """Conditional autoencoder (Gu, Kelly and Xiu 2021): loadings that are a neural network of the characteristics.

    r[t] = beta(Z[t-1])' f[t] + e[t] with a neural network beta, and f linear in managed portfolios. Source: Gu, Kelly
    and Xiu (2021), "Autoencoder asset pricing models", Journal of Econometrics 222. The loadings are a feed-forward
    network of the characteristics with ReLU and batch normalisation (CA0: ``hidden=()``, CA1: ``(32,)``, CA2: ``(32,
    16)``, CA3: ``(32, 16, 8)``). The factors are W' x[t] of the managed portfolios x[t] = (Z[t-1]'Z[t-1])^-1
    Z[t-1]'r[t], where Z has a column of ones, so that the market is among them. Both are learnt together from the mean
    squared error over the estimation universe and an L1 penalty on the weights, by Adam, with early stopping on the
    last dates of the panel. Every seed trains one network; the model is the K-factor model nearest to the average of
    the networks (see `models.families.autoencoder.ensemble`).

    With ``factors="profiled"`` there is no factor network: f[t] is the least squares of r[t] on beta(Z[t-1]), in
    the loss as in `factor_returns`, and the loss sum_t min_f |r[t] - beta(Z[t-1])' f|^2 is differentiated through it
    (variable projection; Golub and Pereyra 1973, "The differentiation of pseudo-inverses and nonlinear least squares
    problems whose variables separate", SIAM Journal on Numerical Analysis 10). With linear loadings that is the
    criterion of IPCA. Managed portfolios hold no factor whose loadings are uncorrelated with every characteristic, such
    as a product of two, and each has its own noise; a regression on the loadings finds such factors, with the noise of
    K portfolios. A minibatch is then all stocks of a few dates.

    With ``factors="returns"`` it is the model for a fixed set of stocks: f[t] = b + W' r[t] is one dense layer of the
    returns of all stocks that traded in training (0 where one has none; a stock that came later has loadings, and is
    not in the factors), and the hidden layers of the loadings are dense with a bias and ReLU, then batch normalisation.
    With the target one_ahead the factors of the day before explain a return.

    Returns, portfolios and characteristics are divided by their scale for training, so that no parameter has
    a unit: the model of returns in percent is the model of returns in decimals times 100.

    The target ``one_ahead`` trains r[t] on beta(Z[t-1])' g[t-1] with g[t-1] = b + W' x[t-1], all of it known
    before t: g is the conditional premium, which `expected_returns` at t uses. That is NaN on the first date
    of a panel, for which the panel has no x[t-1]: begin the panel one date earlier. Realised factor returns
    f[t] are then the cross-sectional regression of r[t] on beta(Z[t-1]).

    Parameters
    ----------
    n_factors : int
        Number of factors K; at most the number of managed portfolios, or of profiled factors one more than the last
        hidden layer, or the characteristics, has.
    hidden : tuple of int
        Widths of the hidden layers of the loadings network: none is CA0, [32] CA1, [32, 16] CA2.
    learning_rate : float
        Step of Adam, by which the networks are trained.
    l1 : float
        L1 penalty on the weights of all linear layers, relative to the mean squared return.
    max_epochs : int
        Most passes over the rows; the weights of the pass with the lowest validation loss count.
    patience : int
        Passes without a lower validation loss after which training stops.
    validation_fraction : float
        Share of the dates of the panel, the last ones, on which training stops and from which it does not
        learn.
    seeds : tuple of int
        One network of the ensemble per seed.
    target : {"contemporaneous", "one_ahead"}
        Explain a return by the factors of its own period, or predict it by a premium that is known before.
    factors : {"portfolios", "returns", "profiled"}
        Factors are linear in the managed portfolios, as published, or in the returns of a fixed set of stocks, or the
        regression of the returns of each date on the loadings.

    Attributes
    ----------
    chars_ : list of str
        The characteristics, in the order in which the networks take them.
    history_ : list of EpochReport
        The training of every seed that is in the model.
    tickers_ : list of str
        The stocks that factors are linear in, in the order in which the networks take them; none unless
        ``factors="returns"``.

    Examples
    --------
    >>> from models import ConditionalAutoencoder
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = ConditionalAutoencoder(n_factors=1, hidden=(4,), seeds=(0,), max_epochs=2).fit(panel)
    >>> model.loadings(panel).dims
    ('date', 'ticker', 'factor')
    """

    kind: ClassVar[str] = "autoencoder"
    latent: ClassVar[bool] = True
    effort: ClassVar[int] = 100

    def __init__(
        self,
        n_factors: Annotated[int, Ge(1), Le(50)] = 5,
        hidden: Annotated[tuple[int, ...], MaxLen(3)] = (32,),
        learning_rate: Annotated[float, Gt(0.0)] = 3e-3,
        l1: Annotated[float, Ge(0.0)] = 2e-3,
        max_epochs: Annotated[int, Ge(1)] = 100,
        patience: Annotated[int, Ge(1)] = 5,
        validation_fraction: Annotated[float, Gt(0.0), Lt(0.9)] = 0.2,
        seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2),
        target: Target = "contemporaneous",
        factors: Factors = "portfolios",
    ) -> None:
        self.n_factors = n_factors
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.l1 = l1
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.seeds = seeds
        self.target = target
        self.factors = factors

    @property
    def row_memory(self) -> int:
        """1 with the target one_ahead, whose conditional premium is that of the row before; else 0."""
        return 1 if self.target == "one_ahead" else 0

    def fit(self, panel: Panel, y: None = None, callback: Callback | None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Train every seed, one after the other, and combine them.

        It is ``combine(panel, [fit_seed(panel, seed) for seed in seeds])``, bit for bit; use those two to
        train seeds in different processes.

        Parameters
        ----------
        panel : Panel
            The training sample; its last dates are the validation span.
        callback : callable, optional
            Called with an `EpochReport` after every epoch.

        Raises
        ------
        ModelError
            The panel cannot carry the factors or a validation span, the loss is not finite, or every seed
            collapsed.
        """
        data = self._training_data(panel)
        return self.combine(panel, [train(data, self._options(), seed, callback) for seed in self.seeds])

    def pieces(self) -> tuple[str, ...]:
        """Return the seeds: one network of the ensemble each."""
        return tuple(str(seed) for seed in self.seeds)

    def fit_piece(self, panel: Panel, piece: str, report: Report | None = None) -> ModelState:
        """Train the network of one seed; see the base class. One line is reported for every epoch."""
        told: Callback | None = None if report is None else lambda epoch: report(str(epoch))
        return self.fit_seed(panel, int(piece), told).state()

    def join(self, panel: Panel, pieces: Sequence[ModelState]) -> Self:
        """Combine the networks of all seeds; see the base class and `combine`."""
        return self.combine(panel, [Member.from_state(piece) for piece in pieces])

    def fit_seed(self, panel: Panel, seed: int, callback: Callback | None = None) -> Member:
        """Train the network of one seed, and change nothing in the model; for the rest see `fit`."""
        return train(self._training_data(panel), self._options(), seed, callback)

    def combine(self, panel: Panel, members: Sequence[Member]) -> Self:
        """Become the fitted model of these members, which `fit_seed` trained on the same panel.

        Factors are normalised over the dates of the panel: the average of X'X/n is I, the covariance of the
        factors is diagonal and descending, and the mean of every factor is positive.

        Raises
        ------
        ModelError
            All members collapsed to fewer than K factors. Some that did are left out, with a warning.
        """
        gram, factors = mean_gram(members, panel), self._member_factors(members, panel)
        lost = collapsed(members, gram, factors)
        if lost:
            self._report_collapse([members[position].history[0].seed for position in lost], len(members))
            members = [member for position, member in enumerate(members) if position not in lost]
            gram, factors = mean_gram(members, panel), self._member_factors(members, panel)
        self._ensemble = Ensemble.of(members, gram, factors)
        self.chars_ = panel.chars
        self.tickers_ = traded(panel) if self.factors == "returns" else []
        self.factors_ = [f"factor_{k + 1}" for k in range(self.n_factors)]
        self.history_ = [report for member in members for report in member.history]
        returns = self.factor_returns(panel).values
        rotation = principal_axes(returns[np.isfinite(returns).all(axis=1)])
        self._ensemble = self._ensemble.rotated(rotation)
        self.premia_ = _float32_exact(np.nanmean(returns, axis=0) @ rotation)
        return self

    def loadings(self, panel: Panel) -> xr.DataArray:
        """Return beta(Z[t-1]) as (date, ticker, factor) float32, block by block; NaN where not covered.

        Raises
        ------
        ModelError
            The panel lacks a characteristic that the model was fitted to.
        """
        self._check_fitted()
        values = self._ensemble.networks.of_panel(panel, self.chars_)
        coords = {"date": panel.dates, "ticker": panel.tickers, "factor": self.factors_}
        return xr.DataArray(values, dims=("date", "ticker", "factor"), coords=coords, name="loadings")

    def factor_returns(self, panel: Panel) -> xr.DataArray:
        """Return f[t] as (date, factor) float64; NaN on dates without an estimation universe.

        W' x[t], or b + W' r[t] of single stocks; with the target one_ahead or profiled factors the regression of r[t]
        on the loadings (NaN also on dates with fewer stocks than factors, or than one more if profiled).
        """
        self._check_fitted()
        if self.target == "one_ahead" or self.factors == "profiled":
            values = self._regressed(panel)
        else:
            values = self._ensemble.factors(factor_inputs(panel, self.chars_, self.target, self._stocks()))
        return self._over_dates(panel, values).rename("factor_returns")

    def expected_returns(self, panel: Panel) -> xr.DataArray:
        """Return loadings times premia as (date, ticker), or times g[t-1] with the target one_ahead."""
        if self.target == "contemporaneous":
            return super().expected_returns(panel)
        self._check_fitted()
        premia = self._ensemble.factors(factor_inputs(panel, self.chars_, self.target, self._stocks()))
        expected = (self.loadings(panel) * self._over_dates(panel, premia)).sum("factor", skipna=False)
        return expected.rename("expected_returns")

    def rotate(self, rotation: FloatArray) -> Self:
        """Return the same model in rotated coordinates; see the base class. ConfigError if not orthogonal."""
        self._check_fitted()
        rotation = check_rotation(rotation, self.n_factors)
        arrays = self._ensemble.rotated(rotation).arrays()
        arrays["premia"] = (self._premia @ rotation).astype(np.float32)
        return self.from_state(self.get_params(), ModelState(arrays, self.state().meta))

    def state(self) -> ModelState:
        """Return networks, factor weights and premia, all in float32; and names and the training history."""
        self._check_fitted()
        arrays = {**self._ensemble.arrays(), "premia": self._premia.astype(np.float32)}
        history = [asdict(report) for report in self.history_]
        names = {"chars": self.chars_, "factors": self.factors_}
        return ModelState(arrays, names | ({"tickers": self.tickers_} if self.tickers_ else {}) | {"history": history})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model; see the base class."""
        model = cls(**params)
        model._ensemble = Ensemble.from_arrays(state.arrays)
        model.premia_ = state.arrays["premia"].astype(np.float64)
        model.chars_ = list(state.meta["chars"])
        model.factors_ = list(state.meta["factors"])
        model.tickers_ = list(state.meta.get("tickers", []))
        model.history_ = [EpochReport(**report) for report in state.meta["history"]]
        return model

    def _options(self) -> TrainingOptions:
        return TrainingOptions(
            n_factors=self.n_factors,
            hidden=tuple(self.hidden),
            intercept=self.target == "one_ahead" or self.factors == "returns",
            learning_rate=self.learning_rate,
            l1=self.l1,
            max_epochs=self.max_epochs,
            patience=self.patience,
            factors=self.factors,
        )

    def _training_data(self, panel: Panel) -> TrainingData:
        if self.factors == "profiled":
            self._check_profiled(panel)
        return TrainingData.of(
            panel,
            target=self.target,
            validation_fraction=self.validation_fraction,
            n_factors=self.n_factors,
            factors=self.factors,
        )

    def _check_profiled(self, panel: Panel) -> None:
        if self.target == "one_ahead":
            raise ModelError(
                "Profiled factors are regressions of the returns of their own date, which nobody knows before: with "
                "the target one_ahead use factors='portfolios'."
            )
        most = (self.hidden[-1] if self.hidden else len(panel.chars)) + 1
        if not panel.chars or not 1 <= self.n_factors <= most:
            raise ModelError(
                f"n_factors={self.n_factors}, but hidden={self.hidden} and {len(panel.chars)} characteristics give "
                f"loadings of 1 to {most} factors; lower it, widen the last hidden layer, or add characteristics."
            )

    def _member_factors(self, members: Sequence[Member], panel: Panel) -> FloatArray:
        """Factors of all members side by side, on the dates of the panel that have them."""
        if self.factors == "profiled":
            return profiled_factors(members, panel)
        seen = factor_inputs(panel, panel.chars, self.target, traded(panel) if self.factors == "returns" else None)
        return member_factors(members, seen[np.isfinite(seen).all(axis=1)])

    def _stocks(self) -> list[str] | None:
        return self.tickers_ or None

    def _report_collapse(self, seeds: list[int], n_members: int) -> None:
        text = f"fewer than {self.n_factors} distinct factors; lower n_factors, l1 or learning_rate."
        if len(seeds) == n_members:
            raise ModelError(f"Every seed of the autoencoder {seeds} learnt {text}")
        warnings.warn(f"Seeds {seeds} are left out of the ensemble: they learnt {text}", stacklevel=3)

    def _regressed(self, panel: Panel) -> FloatArray:
        """Least squares of r[t] on the loadings over the estimation universe, (date, factor)."""
        values, fewest = [], self.n_factors + (self.factors == "profiled")
        for block in panel.blocks():
            weights = block.mask.values.astype(np.float64)
            gram, moment = cross_sections(self.loadings(block).values, block.returns.values, weights)
            solution, rank = solve_gram(gram, moment[..., None])
            known = (rank == self.n_factors) & (block.mask.values.sum(axis=1) >= fewest)
            values.append(np.where(known[:, None], solution[..., 0], np.nan))
        return np.concatenate(values)

    def _over_dates(self, panel: Panel, values: FloatArray) -> xr.DataArray:
        coords = {"date": panel.dates, "factor": self.factors_}
        return xr.DataArray(values, dims=("date", "factor"), coords=coords)


def _float32_exact(values: FloatArray) -> FloatArray:
    """Round to what float32 can hold, so that a state stored in float32 gives the same numbers."""
    return values.astype(np.float32).astype(np.float64)
