"""SDFs whose weights and loadings are linear in features: the sample, the factors beside the SDF's, and the state.

Here belongs what such models share. Which features there are, and how the SDF's weights on them are learnt, belongs in
the module of each model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.arrays import Float64Array, FloatArray, NamedArrays
from models.families.base import ModelState
from models.families.sdf.estimation import loadings_of, second_moments
from models.families.sdf.pricing import SDF, SDFModel
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.features import FeatureMap, Section, Units, sections_of
from schemas.errors import ModelError


@dataclass(frozen=True, eq=False)
class Sample:
    """What an SDF is learnt from.

    Attributes
    ----------
    sections : list of Section
        Dates with enough returns, with the characteristics that vary.
    units : Units
        Of these characteristics.
    chars : list of str
        Their names.
    """

    sections: list[Section]
    units: Units
    chars: list[str]


class FeatureSDF(SDFModel):
    """An SDF with w = phi(C) theta and X = phi(C) B for features phi, of which the first are [1, C] in standard units.

    The first factor is the SDF's, with weights of mean square one. Those that follow are the portfolios of ``beside``
    less their projection on it, sum_t f f_sdf / sum_t f_sdf^2 times f_sdf: were the SDF exact, their premia would be
    zero. They describe risk that has no price.
    """

    beside: tuple[str, ...]
    _features: FeatureMap
    _theta: Float64Array
    _slopes: Float64Array

    def _weights(self, rows: FloatArray) -> Float64Array:
        return self._features(rows) @ self._theta

    def _exposures(self, rows: FloatArray) -> Float64Array:
        return self._features(rows) @ self._slopes

    def _sample(self, panel: Panel, least: int, lower: str) -> Sample:
        """Return the dates of the panel with ``min_stocks`` returns.

        Raises
        ------
        ModelError
            If these are fewer than ``least`` (what to ``lower`` is said), no characteristic varies, or ``beside`` names
            one that does not.
        """
        sections = sections_of(panel, panel.chars, self.min_stocks)
        if len(sections) < least:
            raise ModelError(
                f"{type(self).__name__} needs {least} dates with min_stocks={self.min_stocks} returns; the panel has "
                f"{len(sections)}. Give more dates, or lower {lower}."
            )
        every = Units.of(sections)
        varying = every.varying
        if not len(varying):
            raise ModelError(f"An SDF needs a characteristic that varies; the panel has {panel.chars}. Add one.")
        chars = [panel.chars[place] for place in varying]
        unknown = [name for name in self.beside if name not in {*chars, CONSTANT}]
        if unknown:
            raise ModelError(f"beside={unknown} are no characteristics that vary; choose among {[CONSTANT, *chars]}.")
        return Sample([section.of(varying) for section in sections], every.at(varying), chars)

    def _become(
        self, features: FeatureMap, portfolios: Float64Array, theta: Float64Array, sample: Sample, n_folds: int
    ) -> None:
        """Take the factors, their premia and the loadings.

        Parameters
        ----------
        portfolios : numpy.ndarray
            (date, feature) that the features manage, on the dates of the sample.
        theta : numpy.ndarray
            (feature,) weights of the SDF factor, up to scale.
        n_folds : int
            Of `models.families.sdf.estimation.loadings_of`.

        Raises
        ------
        ModelError
            If the SDF factor is nothing.
        """
        square = float(theta @ second_moments(features, sample.sections) @ theta)
        if not square > 0.0:
            raise ModelError("The managed portfolios of the SDF earn nothing: check the returns of the panel.")
        self._theta = self._with_beside(theta / np.sqrt(square), portfolios, sample.chars)
        factors = portfolios @ self._theta
        self._slopes = loadings_of(features, sample.sections, portfolios, factors, n_folds)
        self._features, self.premia_ = features, factors.mean(axis=0)
        self.chars_, self.factors_ = sample.chars, [SDF, *self.beside]

    def _with_beside(self, theta: Float64Array, portfolios: Float64Array, chars: list[str]) -> Float64Array:
        """Return the weights (feature, factor) on the features of the SDF factor (feature,) and those beside it."""
        sdf = portfolios @ theta
        own = np.zeros((len(theta), len(self.beside)))
        for column, name in enumerate(self.beside):
            own[0 if name == CONSTANT else 1 + chars.index(name), column] = 1.0
        share = sdf @ (portfolios @ own) / (sdf @ sdf)
        return np.column_stack([theta, own - theta[:, None] * share])

    def _linear_arrays(self) -> NamedArrays:
        """Return weights, loadings and premia for the state, which names characteristics under ``chars``."""
        return {"theta": self._theta, "slopes": self._slopes, "premia": self._premia}

    def _restore(self, features: FeatureMap, state: ModelState) -> None:
        """Take them from the state."""
        self._features = features
        self._theta, self._slopes = state.arrays["theta"], state.arrays["slopes"]
        self.premia_ = state.arrays["premia"]
        self.chars_, self.factors_ = list(state.meta["chars"]), [SDF, *self.beside]
