"""The models that a run may fit, with their parameters: the `models` part of a run spec.

The fields of a spec besides `kind` and `name` are the constructor arguments of the model class, one to one; a test
holds it. How a kind becomes a class belongs in `tasks.registry`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from schemas.base import Frozen, Name

Factors = Annotated[int, Field(ge=1, le=50, description="Number of factors K.")]


def _number_or_rule(value: Any) -> Any:
    """Say what is wrong in one line, where the alternatives of a union would each say it of themselves."""
    if isinstance(value, str) and value not in ("bai_ng", "onatski", "ahn_horenstein"):
        raise PydanticCustomError("factor_rule", "Input should be a number, 'bai_ng', 'onatski' or 'ahn_horenstein'")
    if isinstance(value, int) and value < 1:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    if isinstance(value, int) and value > 50:
        raise PydanticKnownError("less_than_equal", {"le": 50})
    return value


StandardErrors = Annotated[
    Literal["nonrobust", "HC0", "HC1", "HC2", "HC3", "HAC"],
    Field(description="Standard errors by the names of statsmodels; HAC is Newey-West."),
]
NeweyWestLags = Annotated[
    int | None, Field(ge=0, description="Lags of cov_type HAC; floor(4 (T/100)^(2/9)) if left out.")
]
FactorsOrRule = Annotated[
    int | Literal["bai_ng", "onatski", "ahn_horenstein"],
    BeforeValidator(_number_or_rule),
    Field(description="Number of factors K from 1 to 50, or the rule that chooses it at every fit."),
]


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
    cov_type: StandardErrors = "nonrobust"
    newey_west_lags: NeweyWestLags = None
    shrinkage: Literal["vasicek", "blume"] | None = Field(
        default=None, description="Shrink betas towards their cross-section (vasicek) or by Blume's regression; or not."
    )


class TimeSeriesSpec(_Model):
    """Regression of every stock on observed factors, such as those of Fama and French."""

    kind: Literal["time_series"] = "time_series"
    name: Name = "time_series"
    factors: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Observed factors, in order; all of the cube's if left out."
    )
    window: int | None = Field(default=None, ge=24, description="Periods of the regression; all if left out.")
    min_observations: int = Field(default=60, ge=3, description="Fewest returns with which a stock is covered.")
    cov_type: StandardErrors = "nonrobust"
    newey_west_lags: NeweyWestLags = None
    premia: Literal["mean", "ols", "gls"] = Field(
        default="mean",
        description="Premia: means of traded factors, or the cross-section of mean returns by OLS or GLS.",
    )


class FamaMacBethSpec(_Model):
    """Cross-sectional regression on the characteristics, with Newey-West errors of the premia."""

    kind: Literal["fama_macbeth"] = "fama_macbeth"
    name: Name = "fama_macbeth"
    newey_west_lags: int | None = Field(default=None, ge=0, description="Lags; floor(4 (T/100)^(2/9)) if left out.")
    min_stocks: int | None = Field(
        default=None, ge=1, description="Fewest stocks of a date; its regressors plus one if left out."
    )
    weighting: Literal["equal", "cap", "sqrt_cap"] = Field(
        default="equal", description="Weight of a stock in a cross-section: its market weight or the square root of it."
    )
    deficient: Literal["drop_column", "drop", "ridge"] = Field(
        default="drop_column",
        description="Of a rank-deficient date: leave out a characteristic that nobody has and drop collinear dates, "
        "drop all such dates, or give collinear dates ridge slopes.",
    )
    ridge: float = Field(
        default=1e-4, gt=0.0, description="Added to the unit diagonal of the scaled Gram matrix of a collinear date."
    )
    debiased: bool = Field(default=False, description="Divide squares of n slopes by n - 1 instead of n.")
    estimated_betas: dict[str, str] | None = Field(
        default=None,
        description="Characteristics that are estimated betas, each with its observed factor, for errors of Shanken.",
    )


class PenalisedSpec(_Model):
    """Ridge, lasso or elastic net on observed factors or on characteristics, its penalty by cross-validation."""

    kind: Literal["penalised"] = "penalised"
    name: Name = "penalised"
    mode: Literal["cross_section", "time_series"] = Field(
        default="cross_section",
        description="Pooled regression on the characteristics, or each ticker's on the observed factors.",
    )
    penalty: Literal["elastic_net", "lasso", "ridge"] = Field(default="elastic_net", description="Form of the penalty.")
    l1_ratio: float = Field(default=0.5, gt=0.0, le=1.0, description="Share of the l1 part; elastic_net only.")
    n_lambdas: int = Field(default=100, ge=2, le=1000, description="Penalties on the path.")
    lambda_: float | None = Field(
        default=None, ge=0.0, allow_inf_nan=False, description="The penalty; by cross-validation if left out."
    )
    n_folds: int = Field(default=5, ge=2, description="Blocks of dates of the cross-validation.")
    purge: int = Field(default=1, ge=0, description="Dates left out of training on either side of a tested block.")
    embargo: int = Field(default=0, ge=0, description="Further dates left out after a tested block.")
    rule: Literal["one_se", "min"] = Field(
        default="one_se", description="Strongest penalty within one standard error of the least error, or the least."
    )
    standardise: bool = Field(
        default=True, description="Penalise slopes of regressors and returns of unit standard deviation."
    )
    weighting: Literal["equal", "cap", "sqrt_cap"] = Field(
        default="equal", description="Weight of each stock by its share of the market; cross_section only."
    )
    min_observations: int = Field(
        default=60, ge=3, description="Fewest returns with which a stock is covered; time_series only."
    )
    factors: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Observed factors; all if left out. time_series only."
    )
    n_bootstraps: int = Field(default=100, ge=0, description="Samples drawn by date to see how stable selection is.")
    seed: int = Field(default=0, ge=0, description="Seed of these draws.")


class CrossSectionSpec(_Model):
    """Market, industries and styles by weighted least squares at each date, in Barra's manner."""

    kind: Literal["cross_section"] = "cross_section"
    name: Name = "cross_section"
    weighting: Literal["sqrt_cap", "inverse_specific_variance", "cap", "equal"] = Field(
        default="sqrt_cap", description="Regression weights; specific variances are those known before the date."
    )
    constraint: Literal["cap", "regression"] = Field(
        default="cap",
        description="Industries' returns sum to zero, weighted by capitalisation or by the weights of the regression.",
    )
    orthogonalise: tuple[tuple[str, tuple[str, ...]], ...] = Field(
        default=(),
        description="Styles to replace by what a regression on other styles leaves of them: [style, others].",
    )
    huber: float | None = Field(
        default=None,
        gt=0.0,
        description="Threshold of Huber's robust regression, usually 1.345; least squares if left out.",
    )
    max_iter: int = Field(default=50, ge=1, description="Most steps of Huber's iteration.")
    tol: float = Field(default=1e-6, gt=0.0, description="Move of a scaled residual at which Huber's iteration stops.")
    halflife: float = Field(default=63.0, gt=0.0, description="Of the specific variance in the weights, in dates.")
    refresh: int = Field(
        default=21, ge=1, description="Dates after which specific variances in the weights are renewed."
    )
    min_observations: int = Field(
        default=20, ge=1, description="Residuals that a stock needs for a specific variance of its own."
    )
    missing_industries: Literal["nan", "market"] = Field(
        default="nan", description="Return of an industry without a stock on a date: unknown, or the market's."
    )
    newey_west_lags: int | None = Field(default=None, ge=0, description="Lags; floor(4 (T/100)^(2/9)) if left out.")
    min_stocks: int | None = Field(
        default=None, ge=2, description="Dates with fewer stocks are dropped; one more than the regressors if left out."
    )


class PCASpec(_Model):
    """Principal components of returns."""

    kind: Literal["pca"] = "pca"
    name: Name = "pca"
    n_factors: FactorsOrRule = 5
    max_factors: int = Field(default=8, ge=1, le=50, description="Largest number that a rule considers.")
    scale: Literal["covariance", "correlation"] = Field(default="covariance", description="The decomposed matrix.")
    missing: Literal["em", "pairwise"] = Field(
        default="em", description="Fill gaps by the factors, or estimate each covariance from the dates of the pair."
    )
    min_observed: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Share of dates that a stock needs to enter the decomposition."
    )
    min_observations: int = Field(
        default=60, ge=3, description="Fewest returns with which any other stock gets loadings."
    )
    max_iter: int = Field(default=1000, ge=1, description="Limit of the rounds that fill gaps.")
    tol: float = Field(default=1e-7, gt=0.0, description="Relative change of the fit at which the fill has settled.")


class RPPCASpec(PCASpec):
    """Risk-premium principal components (Lettau and Pelger 2020)."""

    kind: Literal["rp_pca"] = "rp_pca"  # type: ignore[assignment]  # the discriminator narrows to its own value
    name: Name = "rp_pca"
    gamma: float = Field(default=10.0, ge=-1.0, allow_inf_nan=False, description="Weight of the means; -1 is PCA.")


class IPCASpec(_Model):
    """Instrumented principal components (Kelly, Pruitt and Su 2019)."""

    kind: Literal["ipca"] = "ipca"
    name: Name = "ipca"
    n_factors: int = Field(default=5, ge=0, le=50, description="Number of latent factors; 0 beside observed ones only.")
    intercept: bool = Field(default=False, description="Estimate Gamma_alpha: expected return that no factor earns.")
    observed: tuple[str, ...] = Field(default=(), description="Pre-specified factors, by name in the universe's own.")
    mode: Literal["portfolio", "panel"] = Field(
        default="portfolio", description="Work on Gram statistics, or on the rows by QR: slower, with more digits."
    )
    n_starts: int = Field(default=1, ge=1, description="Starts of the iterations; the best is kept.")
    memory: int = Field(default=10, ge=0, description="Steps that Anderson acceleration looks back on; 0 for none.")
    bootstrap: int = Field(default=0, ge=0, description="Draws of the tests of Gamma; 0 for no tests.")
    max_iter: int = Field(default=1000, ge=1, description="Limit of the iterations of each start.")
    tol: float = Field(default=1e-6, gt=0.0, description="Turn of Gamma, as a sine, at which it has settled.")


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


ModelSpec = Annotated[
    MarketSpec
    | TimeSeriesSpec
    | FamaMacBethSpec
    | CrossSectionSpec
    | PCASpec
    | RPPCASpec
    | IPCASpec
    | PenalisedSpec
    | AutoencoderSpec,
    Field(discriminator="kind"),
]
