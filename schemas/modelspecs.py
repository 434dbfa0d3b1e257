"""The models that a run may fit, with their parameters: the `models` part of a run spec.

The fields of a spec besides `kind` and `name` are the constructor arguments of the model class, one to one; a test
holds it. How a kind becomes a class belongs in `tasks.registry`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Frozen, Name

Factors = Annotated[int, Field(ge=1, le=50, description="Number of factors K.")]


class _Model(Frozen):
    kind: str
    name: Name

    def params(self) -> dict[str, Any]:
        """Return the constructor arguments of the model class."""
        return {key: value for key, value in self.model_dump().items() if key not in ("kind", "name")}


class MarketSpec(_Model):
    """Market model / CAPM."""

    kind: Literal["market"] = "market"
    name: Name = "market"
    market: str | None = Field(
        default=None, description="Observed factor that is the market; the universe's own if left out."
    )
    window: int | None = Field(default=None, ge=24, description="Periods of the regression; all if left out.")
    min_observations: int = Field(default=60, ge=3, description="Fewest returns with which a stock is covered.")


class FamaMacBethSpec(_Model):
    """Cross-sectional regression on the characteristics, with Newey-West errors of the premia."""

    kind: Literal["fama_macbeth"] = "fama_macbeth"
    name: Name = "fama_macbeth"
    newey_west_lags: int | None = Field(default=None, ge=0, description="Lags; floor(4 (T/100)^(2/9)) if left out.")


class PCASpec(_Model):
    """Principal components of returns."""

    kind: Literal["pca"] = "pca"
    name: Name = "pca"
    n_factors: Factors = 5


class IPCASpec(_Model):
    """Instrumented principal components (Kelly, Pruitt and Su 2019)."""

    kind: Literal["ipca"] = "ipca"
    name: Name = "ipca"
    n_factors: Factors = 5
    max_iter: int = Field(default=1000, ge=1)
    tol: float = Field(default=1e-6, gt=0.0)


class AutoencoderSpec(_Model):
    """Conditional autoencoder (Gu, Kelly and Xiu 2021): CA0 with no hidden layer, CA1 with (32,), CA2 with (32, 16)."""

    kind: Literal["autoencoder"] = "autoencoder"
    name: Name = "autoencoder"
    n_factors: Factors = 5
    hidden: tuple[int, ...] = Field(
        default=(32,), max_length=3, description="Widths of the hidden layers of the loadings network."
    )
    learning_rate: float = Field(default=3e-3, gt=0.0)
    l1: float = Field(
        default=2e-3, ge=0.0, description="L1 penalty of the weights, relative to the mean squared return."
    )
    max_epochs: int = Field(default=100, ge=1)
    patience: int = Field(
        default=5, ge=1, description="Epochs without progress on the validation span before stopping."
    )
    validation_fraction: float = Field(
        default=0.2, gt=0.0, lt=0.9, description="Last share of the dates kept for validation."
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="One network of the ensemble per seed.")
    target: Literal["contemporaneous", "one_ahead"] = "contemporaneous"


ModelSpec = Annotated[MarketSpec | FamaMacBethSpec | PCASpec | IPCASpec | AutoencoderSpec, Field(discriminator="kind")]
