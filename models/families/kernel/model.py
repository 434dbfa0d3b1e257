"""IPCA on functions of characteristics as a factor model: parameters, fitting, and what a fitted one answers.

Here belongs the class that users meet. Choice of functions and estimation belong in `estimation`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import xarray as xr
from annotated_types import Ge, Gt, Le, Lt, MinLen
from sklearn.exceptions import ConvergenceWarning

from models.arrays import FloatArray
from models.families.base import ModelState
from models.families.functions import ModelOfFunctions
from models.families.kernel.estimation import Options, Sample, learn
from models.panel import Panel
from models.statistics.features import Features, Units, sections_of
from schemas.errors import ModelError

_META = ("bandwidth", "ridge", "validated_total_r2", "converged", "n_iter", "last_change")


class KernelIPCA(ModelOfFunctions):
    """Instrumented principal components whose loadings are nonlinear functions of characteristics.

    r[t] = phi(C[t-1]) Gamma f[t] + e[t], where phi are functions of the characteristics: a constant, the
    characteristics, and those that count of their squares, pairwise products, cosines and sines of one
    characteristic, and random Fourier features of all of them (Rahimi and Recht 2007), which make the Gaussian
    kernel exp(-(h^2 / 2) sum_l w_l^2 (c_l - d_l)^2) with bandwidths by characteristic (automatic relevance
    determination). Given phi, it is IPCA (Kelly, Pruitt and Su 2019, eq. 6 and 7) on their Gram statistics.

    A screen asks of each function how far stocks that are alike in it move together, beyond what linear loadings
    explain; those that stand out of the noise stay. It is an unbiased estimate of the variance of the function's slope,
    and so gives the ridge of each function: Gamma minimises sum_t |r - phi Gamma f|^2 + z N sum_j (Gamma f)_j^2
    E[phi_j^2] / excess_j. The fit of products and waves of one characteristic gives the relevance w_l. Ridge z,
    bandwidth h, and whether functions beyond linear ones enter at all are those with the highest total R2 on the last
    dates of the training sample; then all is fitted anew to the whole of it.

    Factor returns are cross-sectional regressions on the loadings, without a ridge. Normalisation: Gamma'Gamma = I,
    F'F / T diagonal and descending, the mean of every factor positive.

    Parameters
    ----------
    n_factors : int
        Number of latent factors K.
    n_features : int
        Most functions beside the constant and the characteristics; 0 for linear loadings.
    n_waves : int
        Random Fourier features of all characteristics among which the screen chooses; 0 for none.
    bandwidths : tuple of float
        Frequencies of them that are tried, as standard deviations of the projection of the most relevant
        characteristic, per standard deviation of it.
    ridges : tuple of float
        Ridges z that are tried; 1 is what the screen suggests for each function by itself.
    validation_fraction : float
        Share of the training dates, the last ones, on which choices are judged.
    min_stocks : int
        Fewest returns of a date that enters the fit and has factor returns.
    max_iter : int
        Limit of the iterations.
    tol : float
        Turn of the space spanned by Gamma in a step at which the estimate has settled.
    seed : int
        Of the random Fourier features.

    Attributes
    ----------
    chars_ : list of str
        Characteristics that vary, of which loadings are functions.
    relevance_ : xarray.DataArray
        (char,) size of the slopes in which a characteristic has a part, beside the largest; 0 if it is constant.
    bandwidth_, ridge_ : float
        What did best; bandwidth 0 without random Fourier features.
    n_functions_ : int
        Functions that are kept beside the constant and the characteristics.
    validated_total_r2_ : float
        On the validation span; choices are made by it, so that it is somewhat too high.
    converged_, n_iter_, last_change_ : bool, int, float
        Whether the last step was at most ``tol``, after how many iterations, and how large it was.

    Examples
    --------
    >>> from models import KernelIPCA
    >>> from models.panel import example_panel
    >>> panel = example_panel()
    >>> model = KernelIPCA(n_factors=1, n_features=4, n_waves=8, bandwidths=(1.0,)).fit(panel)
    >>> model.loadings(panel).dims
    ('date', 'ticker', 'factor')
    """

    kind: ClassVar[str] = "kernel_ipca"
    STATISTICS: ClassVar[Mapping[str, str]] = {
        "relevance": "how much the characteristic counts in the loadings, beside the first",
        "bandwidth": "frequency of the random Fourier features, 0 for none",
        "ridge": "ridge that did best, 1 for what each function suggests by itself",
        "n_functions": "number of functions beside the constant and the characteristics",
        "validated_total_r2": "total R2 on the last training dates, held out",
    }
    effort: ClassVar[int] = 20

    def __init__(
        self,
        n_factors: Annotated[int, Ge(1), Le(50)] = 5,
        n_features: Annotated[int, Ge(0), Le(1000)] = 40,
        n_waves: Annotated[int, Ge(0), Le(1000)] = 100,
        bandwidths: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.5, 1.0, 2.0),
        ridges: Annotated[tuple[Annotated[float, Gt(0.0)], ...], MinLen(1)] = (0.01, 0.1, 0.3, 1.0, 3.0),
        validation_fraction: Annotated[float, Gt(0.0), Lt(0.9)] = 0.3,
        min_stocks: Annotated[int, Ge(2)] = 10,
        max_iter: Annotated[int, Ge(1)] = 1000,
        tol: Annotated[float, Gt(0.0)] = 1e-6,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self.n_factors = n_factors
        self.n_features = n_features
        self.n_waves = n_waves
        self.bandwidths = bandwidths
        self.ridges = ridges
        self.validation_fraction = validation_fraction
        self.min_stocks = min_stocks
        self.max_iter = max_iter
        self.tol = tol
        self.seed = seed

    relevance_: xr.DataArray
    bandwidth_: float
    ridge_: float
    n_functions_: int
    validated_total_r2_: float
    converged_: bool
    n_iter_: int
    last_change_: float
    _features: Features

    def fit(self, panel: Panel, y: None = None) -> Self:  # noqa: ARG002  # scikit-learn passes y
        """Fit to the returns in ``panel.mask``; the last dates choose, and then enter.

        Raises
        ------
        ModelError
            If no characteristic varies, characteristics or dates are too few for the factors, or returns do not carry
            so many.

        Warns
        -----
        ConvergenceWarning
            If the estimate still moves after ``max_iter`` iterations.
        """
        sections = sections_of(panel, panel.chars, self.min_stocks)
        n_training = len(sections) - math.ceil(self.validation_fraction * len(sections))
        if n_training <= self.n_factors:
            raise ModelError(
                f"{len(sections)} dates with min_stocks={self.min_stocks} returns leave {n_training} to train "
                f"{self.n_factors} factors on, with validation_fraction={self.validation_fraction}: give a longer "
                "panel, or lower n_factors or min_stocks."
            )
        every = Units.of(sections)
        varying = every.varying
        if not 1 <= self.n_factors <= len(varying) + 1 or not len(varying):
            raise ModelError(
                f"n_factors={self.n_factors}, but {len(varying)} characteristics vary; with a constant they carry at "
                "most as many factors as they are. Lower n_factors, or add characteristics that vary."
            )
        known = panel.mask.values.sum(axis=1) >= self.min_stocks
        sample = Sample([one.of(varying) for one in sections], panel.dates[known])
        options = Options(
            self.n_factors, self.n_features, self.n_waves, self.bandwidths, self.ridges, self.max_iter, self.tol,
            self.seed,
        )  # fmt: skip
        found = learn(sample, every.at(varying), options, n_training)
        self.converged_, self.n_iter_ = found.solution.converged, found.solution.n_iter
        self.last_change_ = found.solution.last_change
        if not self.converged_:
            warnings.warn(
                f"KernelIPCA stopped at max_iter={self.max_iter}: Gamma still turned by {self.last_change_:.1e}, more "
                f"than tol={self.tol}. Raise max_iter, or lower n_factors.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._features, self._gamma, self.premia_ = found.features, found.gamma, found.premia
        self.bandwidth_, self.ridge_ = found.choice.bandwidth or 0.0, found.choice.ridge
        self.validated_total_r2_ = found.choice.value
        chars = [panel.chars[place] for place in varying]
        counts = dict(zip(chars, found.relevance, strict=True))
        self._name(chars, panel.chars, np.array([counts.get(name, 0.0) for name in panel.chars]))
        return self

    def state(self) -> ModelState:
        """Features, Gamma, premia and relevance; what was chosen, and the certificate of convergence."""
        self._check_fitted()
        arrays = self._features.arrays() | {
            "gamma": self._gamma,
            "premia": self._premia,
            "relevance": self.relevance_.values,
        }
        meta = {name: getattr(self, f"{name}_") for name in _META}
        return ModelState(arrays, meta | {"chars": self.chars_, "all_chars": self.relevance_["char"].values.tolist()})

    @classmethod
    def from_state(cls, params: dict[str, Any], state: ModelState) -> Self:
        """Rebuild a fitted model."""
        model = cls(**params)
        for name in _META:
            setattr(model, f"{name}_", state.meta[name])
        model._features = Features.from_arrays(state.arrays)
        model._gamma, model.premia_ = state.arrays["gamma"], state.arrays["premia"]
        model._name(list(state.meta["chars"]), list(state.meta["all_chars"]), state.arrays["relevance"])
        return model

    def _name(self, chars: list[str], among: list[str], relevance: FloatArray) -> None:
        self.chars_ = chars
        self.n_functions_ = self._features.size - len(chars) - 1
        self.factors_ = [f"factor_{k + 1}" for k in range(self.n_factors)]
        self.relevance_ = xr.DataArray(relevance, {"char": among}, ("char",), name="relevance")
