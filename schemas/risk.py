"""How risk is estimated: the block `risk` of a config.

Here belong the parameters of Omega, specific variance and their calibration, and their defaults. The estimators that
have them are in `models.risk`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen
from schemas.calibration import CalibrationSpec
from schemas.risk_presets import PRESETS, Preset, over

HalfLife = Annotated[float, Field(gt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_OF_MOMENTS = ("volatility", "correlation", "shrinkage")
_HALVINGS = 20
"""Half-lives after which an observation counts less than a millionth of what it did at first."""


class MemorySpec(Frozen):
    """A blend of half-lives."""

    halflives: tuple[HalfLife, ...] = Field(
        min_length=1, description="Observations after which one counts half; one estimate for each."
    )
    weights: tuple[Share, ...] = Field(
        default=(), description="Weight of each half-life in the mean of the estimates; equal if left out."
    )
    newey_west_lags: int = Field(
        default=0, ge=0, le=63, description="Lags of autocorrelation that count, with Bartlett's weights."
    )

    @model_validator(mode="after")
    def _weights_match(self) -> Self:
        if self.weights and (len(self.weights) != len(self.halflives) or abs(sum(self.weights) - 1.0) > 1e-9):
            raise ValueError("weights must be as many as halflives and sum to 1")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Weight of each half-life."""
        return self.weights or (1.0 / len(self.halflives),) * len(self.halflives)

    @property
    def remembered(self) -> int:
        """Observations after which one counts less than a millionth."""
        return math.ceil(_HALVINGS * max(self.halflives)) + self.newey_west_lags


class CorrelationSpec(MemorySpec):
    """Correlations, where they have half-lives of their own."""

    standardised: bool = Field(
        default=False,
        description="Of returns over the volatility of their date, so that quiet days count like crises. If not, of "
        "returns as they are.",
    )


class ShrinkageSpec(Frozen):
    """Shrinkage of Omega by the number of observations behind it."""

    method: Literal["oas", "qis", "factor_qis"] = Field(
        default="qis",
        description="oas: towards a multiple of the identity. qis: each eigenvalue by itself. factor_qis: leading "
        "components as they are, qis of the rest.",
    )
    of: Literal["covariance", "correlation"] = Field(
        default="correlation", description="What is shrunk; only the first turns with the factors."
    )
    n_factors: int = Field(default=1, ge=1, description="Leading components; factor_qis only.")


class EigenfactorSpec(Frozen):
    """Eigenfactor adjustment: variances of eigenportfolios raised by what simulations say was missed."""

    n_simulations: int = Field(default=1000, ge=10, description="Draws; the same ones at every date.")
    scale: float = Field(
        default=1.4, ge=0.0, description="The simulated bias counts so many times, for returns that are not normal."
    )
    every: int = Field(default=21, ge=1, description="Observations after which it is simulated again.")
    n_observations: int | None = Field(
        default=None, ge=2, description="Observations simulated; the effective number behind Omega if left out."
    )
    seed: int = Field(default=0, ge=0, description="Of the draws.")


class OracleSpec(Frozen):
    """Average Oracle: eigenvalues as they were realised, on average over past horizons."""

    horizon: int = Field(default=21, ge=1, description="Observations over which eigenportfolios are followed.")
    prior: float = Field(default=6.0, ge=0.0, description="Horizons that the estimated eigenvalues count for.")
    halflife: HalfLife | None = Field(
        default=None, description="Horizons after which one counts half; all count alike if left out."
    )


class RegimeSpec(Frozen):
    """Volatility regime adjustment: all variances times what recent forecasts were off by."""

    halflife: HalfLife = Field(default=42.0, description="Observations after which a forecast's miss counts half.")
    method: Literal["rms", "first_moment", "log"] = Field(
        default="rms", description="Mean of what: squares, absolute values or logarithms of the misses."
    )
    statistic: Literal["diagonal", "mahalanobis"] = Field(
        default="diagonal",
        description="diagonal: mean of squared standardised returns. mahalanobis: of all directions alike.",
    )
    bounds: tuple[float, float] = Field(
        default=(0.5, 2.0), description="Least and greatest factor by which volatilities are multiplied."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0.0 < self.bounds[0] <= 1.0 <= self.bounds[1]:
            raise ValueError("bounds must hold 1 between them, and the least be above 0")
        return self

    @property
    def remembered(self) -> int:
        """Observations after which one counts less than a millionth."""
        return math.ceil(_HALVINGS * self.halflife)


class CombinationSpec(Frozen):
    """CM-IEWMA: iterated EWMA predictors, weighed daily by their likelihood."""

    halflives: tuple[tuple[HalfLife, HalfLife], ...] = Field(
        default=((5.0, 10.0), (10.0, 21.0), (21.0, 63.0), (63.0, 125.0), (125.0, 250.0)),
        min_length=1,
        description="Pairs of half-lives: of volatilities, of correlations.",
    )
    window: int = Field(default=10, ge=1, description="Dates whose likelihood gives the weights.")
    ridge: float = Field(default=0.05, ge=0.0, description="Added to the variances of the first pair, as a share.")
    min_observations: int = Field(default=63, ge=2, description="Before them no correlation is updated.")

    @property
    def remembered(self) -> int:
        """Observations after which one counts less than a millionth."""
        return math.ceil(_HALVINGS * max(map(max, self.halflives))) + self.window


class CovarianceSpec(Frozen):
    """Omega, the factor covariance."""

    method: Literal["ewma", "ledoit_wolf", "oas", "qis", "factor_qis", "cm_iewma"] = Field(
        default="ewma",
        description="ewma: exponentially weighted. ledoit_wolf, oas, qis, factor_qis: the sample covariance, shrunk. "
        "cm_iewma: half-lives weighed daily by likelihood.",
    )
    halflife: float = Field(
        default=90.0, gt=1.0, description="Observations after which one counts half; method ewma only."
    )
    newey_west_lags: int = Field(
        default=0, ge=0, le=63, description="Lags of autocorrelation that count, with Bartlett's weights; ewma only."
    )
    volatility: MemorySpec | None = Field(
        default=None, description="Several half-lives, blended, in the place of halflife; ewma only."
    )
    correlation: CorrelationSpec | None = Field(
        default=None, description="Half-lives of correlations; those of volatilities if left out; ewma only."
    )
    shrinkage: ShrinkageSpec | None = Field(default=None, description="Shrinkage; ewma only; none if left out.")
    combination: CombinationSpec = Field(default=CombinationSpec(), description="Of method cm_iewma.")
    min_observations: int = Field(
        default=24,
        ge=2,
        description="Dates with fewer observations have no Omega; one more than the factors are always asked for.",
    )
    window: int | None = Field(
        default=None, ge=24, description="Observations looked back on; sample methods only. All if left out."
    )
    n_factors: int = Field(default=1, ge=1, description="Leading components; method factor_qis only.")
    centred: bool = Field(
        default=True,
        description="Subtract the (weighted) mean. If not, Omega is the second moment about zero, as some vendors do "
        "with daily data, where the mean is small beside its error. cm_iewma never subtracts it.",
    )
    floor: float = Field(
        default=1e-10,
        gt=0.0,
        lt=1.0,
        description="Least eigenvalue as a share of their mean: what keeps Omega positive definite.",
    )
    oracle: OracleSpec | None = Field(default=None, description="Average Oracle eigenvalues; off if left out.")
    eigenfactor: EigenfactorSpec | None = Field(default=None, description="Eigenfactor adjustment; off if left out.")
    regime: RegimeSpec | None = Field(default=None, description="Volatility regime adjustment; off if left out.")

    @model_validator(mode="after")
    def _one_memory(self) -> Self:
        moments = self.method == "ewma"
        if self.window is not None and self.method in {"ewma", "cm_iewma"}:
            raise ValueError(
                "window goes with method: ledoit_wolf, oas, qis or factor_qis; the others forget by halflife"
            )
        if self.window is not None and self.window < self.min_observations:
            raise ValueError(f"window {self.window} is below min_observations {self.min_observations}")
        given = [name for name in _OF_MOMENTS if getattr(self, name) is not None]
        given += ["newey_west_lags"] if self.newey_west_lags else []
        if given and not moments:
            raise ValueError(f"{given[0]} goes with method: ewma")
        if self.volatility is not None and self.newey_west_lags:
            raise ValueError("give newey_west_lags inside volatility, where there is one")
        if self.oracle is not None and self.eigenfactor is not None:
            raise ValueError("oracle and eigenfactor mend the same bias; give one of them")
        return self

    @property
    def volatilities(self) -> MemorySpec:
        """Half-lives of volatilities, one or several."""
        return self.volatility or MemorySpec(halflives=(self.halflife,), newey_west_lags=self.newey_west_lags)

    @property
    def remembered(self) -> int | None:
        """Observations after which one counts less than a millionth; None if all count for ever.

        A sample has its window twice over, for factors that are not seen on every date.
        """
        if self.oracle is not None:
            return None
        if self.method == "ewma":
            base = max(each.remembered for each in (self.volatilities, self.correlation) if each is not None)
        elif self.method == "cm_iewma":
            base = self.combination.remembered
        elif self.window is not None:
            base = 2 * self.window
        else:
            return None
        return max(base, 0 if self.regime is None else self.regime.remembered)


class StructuralSpec(Frozen):
    """Structural model of specific volatility, for stocks with a thin history."""

    half: float = Field(
        default=25.0,
        ge=0.0,
        description="Residuals at which a stock's own volatility weighs as much: with n it weighs n / (n + half).",
    )
    always: Share = Field(default=0.2, description="Share that is left to the structural volatility of any stock.")
    enough: int = Field(
        default=60, ge=2, description="Residuals from which on a stock is one that the regression learns from."
    )


class GroupShrinkageSpec(Frozen):
    """Bayesian shrinkage of specific volatilities towards those of stocks of like size."""

    strength: float = Field(default=0.1, ge=0.0, description="q of the model: how fast a stock far off is pulled.")
    groups: int = Field(default=10, ge=1, description="Groups by market weight, of equally many stocks.")


class SpecificSpec(Frozen):
    """Specific variance: EWMA of squared residuals with a floor."""

    halflife: float = Field(default=60.0, gt=1.0, description="Residuals after which one counts half.")
    newey_west_lags: int = Field(
        default=0, ge=0, le=63, description="Lags of autocorrelation that count, with Bartlett's weights."
    )
    floor: float = Field(
        default=0.1, ge=0.0, le=1.0, description="Least variance as a share of the cross-section's median."
    )
    min_observations: int = Field(
        default=20, ge=2, description="With fewer residuals a stock gets the median variance, or the structural one."
    )
    structural: StructuralSpec | None = Field(
        default=None, description="Structural model for thin histories; the median if left out."
    )
    shrinkage: GroupShrinkageSpec | None = Field(
        default=None, description="Shrinkage in groups of size; off if left out."
    )
    regime: RegimeSpec | None = Field(default=None, description="Volatility regime adjustment; off if left out.")

    @property
    def remembered(self) -> int:
        """Observations after which one counts less than a millionth."""
        own = math.ceil(_HALVINGS * self.halflife) + self.newey_west_lags
        return max(own, 0 if self.regime is None else self.regime.remembered)


class RiskSpec(Frozen):
    """How the risk of every model is estimated, from its factor returns and residuals.

    A preset gives the keys that are left out; a dump has all values, so that it is read again to the same.
    """

    preset: Preset = Field(
        default="medium",
        description="Horizon, or vendor's model, whose values the keys that are left out have: short (1 day), medium "
        "(21 days), long (a quarter and more), barra_use4s, barra_use4l. A key set to null switches its stage off.",
    )
    covariance: CovarianceSpec = Field(default=CovarianceSpec(), description="How Omega is estimated.")
    specific: SpecificSpec = Field(default=SpecificSpec(), description="How specific variance is estimated.")
    history: int | None = Field(
        default=None,
        ge=64,
        description="Dates up to a fit from which its Omega and specific variance are estimated. If left out, as many "
        "as still count for a millionth by the half-lives, or all where every date counts for ever.",
    )
    own: bool = Field(
        default=True,
        description="Take Omega and specific variance from a model that states its own, such as factor_analysis.",
    )
    calibration: CalibrationSpec | None = Field(
        default=CalibrationSpec(), description="What follows out of sample; null leaves the estimates as they are."
    )

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        values = {
            key: one.model_dump(exclude_unset=True) if isinstance(one, Frozen) else one for key, one in given.items()
        }
        return over(next((PRESETS[one] for one in PRESETS if one == values.get("preset")), {}), values)

    @property
    def remembered(self) -> int | None:
        """Dates up to a fit from which its Omega and specific variance are estimated; None if all."""
        if self.history is not None or self.covariance.remembered is None:
            return self.history
        return max(self.covariance.remembered, self.specific.remembered)

    def since(self, fitted: int) -> int:
        """Return the position of the first date that the risk of a fit made as of a position follows."""
        return first_followed(self.remembered, fitted)


def first_followed(history: int | None, fitted: int) -> int:
    """Return the position of the first of so many dates up to one; of the first of all if the number is None."""
    return 0 if history is None else max(0, fitted + 1 - history)
