"""How risk is estimated: the block `risk` of a config.

Here belong the parameters of Omega and specific variance, and their defaults. The estimators that have them are in
`models.risk`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen


class CovarianceSpec(Frozen):
    """Omega, the factor covariance."""

    method: Literal["ewma", "ledoit_wolf"] = Field(
        default="ewma",
        description="ewma: exponentially weighted. ledoit_wolf: shrunk towards a multiple of the identity.",
    )
    halflife: float = Field(
        default=90.0, gt=1.0, description="Observations after which one counts half; method ewma only."
    )
    min_observations: int = Field(
        default=24,
        ge=2,
        description="Dates with fewer observations have no Omega; one more than the factors are always asked for.",
    )
    window: int | None = Field(
        default=None, ge=24, description="Observations looked back on; method ledoit_wolf only. All if left out."
    )
    centred: bool = Field(
        default=True,
        description="Subtract the (weighted) mean. If not, Omega is the second moment about zero, as some vendors do "
        "with daily data, where the mean is small beside its error.",
    )

    @model_validator(mode="after")
    def _one_memory(self) -> Self:
        if self.method == "ewma" and self.window is not None:
            raise ValueError("window goes with method: ledoit_wolf; ewma forgets by its halflife")
        if self.window is not None and self.window < self.min_observations:
            raise ValueError(f"window {self.window} is below min_observations {self.min_observations}")
        return self


class SpecificSpec(Frozen):
    """Specific variance: EWMA of squared residuals with a floor."""

    halflife: float = Field(default=60.0, gt=1.0, description="Residuals after which one counts half.")
    floor: float = Field(
        default=0.1, ge=0.0, le=1.0, description="Least variance as a share of the cross-section's median."
    )
    min_observations: int = Field(
        default=20, ge=2, description="With fewer residuals a stock gets the median variance."
    )


class RiskSpec(Frozen):
    """How the risk of every model is estimated, from its factor returns and residuals."""

    covariance: CovarianceSpec = Field(default=CovarianceSpec(), description="How Omega is estimated.")
    specific: SpecificSpec = Field(default=SpecificSpec(), description="How specific variance is estimated.")
