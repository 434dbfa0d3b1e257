"""How a model is calibrated by what its forecasts met: the block `risk.calibration` of a config.

Here belong the parameters of the stages in `models.risk.calibration` and `models.risk.volatility`, and their defaults.
What is estimated before them belongs in `schemas.risk`.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Frozen


class VolatilitySpec(Frozen):
    """Variance of every stock over the horizon: the level of the cross-section, and each stock's deviation from it."""

    horizon: int = Field(default=21, ge=1, description="Periods over which risk is forecast.")
    halflives: tuple[float, ...] = Field(
        default=(2.0, 5.0, 20.0, 60.0, 250.0), min_length=2, description="Half-lives of the EWMA variances, in returns."
    )
    level_weights: tuple[float, ...] = Field(
        default=(0.25, 0.35, 0.30, 0.10),
        min_length=1,
        description="Weights of the first of them in the level, a geometric mean. Too few levels are seen to fit them.",
    )
    level_halflife: float = Field(
        default=252.0, gt=1.0, description="Dates after which a realised over a forecast level counts half."
    )
    level_prior: float = Field(default=252.0, ge=0.0, description="Dates for which that ratio is taken to have been 1.")
    slopes: tuple[float, ...] = Field(
        default=(0.0, 0.0, 0.4, 0.3, 0.2),
        min_length=2,
        description="Slopes of a stock's log deviation on those of its EWMA variances, before anything is learnt.",
    )
    ridge: float = Field(default=0.5, ge=0.0, description="Cross-sections that these count for.")
    slope_halflife: float = Field(default=24.0, gt=0.0, description="Horizons after which a cross-section counts half.")
    own_weight: float = Field(
        default=0.3, ge=0.0, le=1.0, description="Weight of a stock's plain EWMA variance, geometrically."
    )
    own_halflife: float = Field(default=63.0, gt=1.0, description="Half-life of that variance, in returns.")
    min_observations: int = Field(default=20, ge=2, description="With fewer returns a stock gets the median variance.")
    floor: float = Field(
        default=0.01, ge=0.0, le=1.0, description="Least variance as a share of the cross-section's median."
    )

    @model_validator(mode="after")
    def _one_slope_each(self) -> Self:
        if len(self.slopes) != len(self.halflives) or len(self.level_weights) > len(self.halflives):
            raise ValueError("give one of slopes for each of halflives, and at most as many level_weights")
        return self


class CurveSpec(Frozen):
    """Eigenvalues of a model in whitened coordinates, corrected by what past ones became out of sample."""

    halflife: float = Field(default=24.0, gt=0.0, description="Horizons after which one counts half.")
    prior: float = Field(default=6.0, gt=0.0, description="Horizons for which forecasts are taken to have been right.")
    bandwidth: float = Field(
        default=0.35, gt=0.0, description="Of the kernel that smooths ratios over log rank; rank 1 stands apart."
    )
    gap: float = Field(
        default=1.02, ge=1.0, description="Least eigenvalue of a factor, in multiples of what no factor explains."
    )


class MarketSpec(Frozen):
    """Level of the leading direction, by what equal weights did out of sample."""

    halflife: float = Field(default=48.0, gt=0.0, description="Horizons after which one counts half.")
    prior: float = Field(
        default=24.0,
        gt=0.0,
        description="Horizons for which forecasts are taken to have been right: the squared z of one market over a "
        "horizon has a standard deviation of about .7, the error to be mended of about .14, and (.7 / .14)^2 = 25.",
    )


class BudgetSpec(Frozen):
    """A factor of constant loading for the estimation error that an optimiser of the whole budget meets."""

    halflife: float = Field(default=24.0, gt=0.0, description="Horizons after which one counts half.")
    prior: float = Field(default=6.0, gt=0.0, description="Horizons that `prior_ratio` counts for.")
    prior_ratio: float = Field(
        default=1.5, ge=1.0, description="Realised over forecast variance of minimum variance, before it is seen."
    )
    share: float = Field(default=0.5, gt=0.0, le=1.0, description="Share of the excess that the factor carries.")


class CalibrationSpec(Frozen):
    """Stages that bring a model's covariance of stocks in line with what its forecasts met out of sample."""

    volatility: VolatilitySpec = Field(
        default=VolatilitySpec(), description="Variances of stocks, which the model's are scaled to."
    )
    floor: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Least specific share of a stock's variance; twins have almost none."
    )
    curve: CurveSpec | None = Field(default=CurveSpec(), description="Eigenvalues by rank; null leaves them.")
    market: MarketSpec | None = Field(default=MarketSpec(), description="Level of the market; null leaves it.")
    budget: BudgetSpec | None = Field(default=BudgetSpec(), description="Estimation error; null leaves it out.")
