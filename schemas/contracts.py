"""What a cube and a published version hold: variables, dimensions, dtypes, units, and the manifest.

Here belong the contracts that writers validate against and readers rely on. Moving bytes belongs in `storage`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, Field

from schemas.base import Frozen, Name
from schemas.checks import SuspectedReturns
from schemas.errors import FactorcubeError

if TYPE_CHECKING:
    import xarray as xr

FORMAT_VERSION = 1
"""Version of the layout of cubes, published versions and manifests."""


class Variable(Frozen):
    """One variable of a contract; dims in order, dtype as numpy names it, and the attributes readers see."""

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    comment: str
    required: bool = True

    @property
    def attrs(self) -> dict[str, str]:
        """CF-like attributes of the stored variable."""
        return {"units": self.units, "long_name": self.long_name, "comment": self.comment}


def _variable(dims: str, dtype: str, units: str, long_name: str, comment: str, *, required: bool = True) -> Variable:
    return Variable(
        dims=tuple(dims.split()), dtype=dtype, units=units, long_name=long_name, comment=comment, required=required
    )


_MISSING = "NaN: missing, never zero."

CUBE: dict[str, Variable] = {
    "returns": _variable(
        "date ticker", "float32", "1", "simple total return over the period that ends at date", _MISSING
    ),
    "characteristics": _variable(
        "date ticker char", "float32", "mixed", "raw characteristics known at the close of date", _MISSING
    ),
    "estimation": _variable(
        "date ticker",
        "bool",
        "1",
        "member of the estimation universe at date",
        "False where there is no return, or a check suspects it.",
    ),
    "refuted": _variable(
        "date ticker",
        "bool",
        "1",
        "whether the return cannot be true: a later price undoes it",
        "True: it counts nowhere, not even where forecasts are judged. Other suspected returns do count there.",
        required=False,
    ),
    "risk_free": _variable("date", "float32", "1", "risk-free return over the period", _MISSING, required=False),
    "factors": _variable(
        "date observed_factor", "float32", "1", "observed factor return over the period", _MISSING, required=False
    ),
    "weights": _variable(
        "portfolio date ticker",
        "float32",
        "1",
        "portfolio weight held from the close of date",
        "0: not held; NaN: the portfolio is not defined at this date.",
    ),
    "industry": _variable(
        "date ticker",
        "int16",
        "1",
        "industry at date, as a position along industry_name",
        "-1: unknown. A position never changes its meaning; names that come later are added at the end.",
        required=False,
    ),
}
"""Variables of a cube (date x ticker x char)."""

_AS_DELIVERED = "As delivered, quarantined rows included. NaN: not delivered, or withdrawn."


def _delivered(dims: str, units: str, long_name: str, dtype: str = "float64") -> Variable:
    return _variable(dims, dtype, units, long_name, _AS_DELIVERED, required=False)


RECORD: dict[str, Variable] = {
    "close": _delivered("date ticker", "currency", "closing price"),
    "open": _delivered("date ticker", "currency", "opening price"),
    "high": _delivered("date ticker", "currency", "highest price"),
    "low": _delivered("date ticker", "currency", "lowest price"),
    "volume": _delivered("date ticker", "shares", "shares traded over the period"),
    "shares": _delivered("date ticker", "shares", "shares outstanding"),
    "returns": _delivered("date ticker", "1", "simple total return over the period that ends at date"),
    "delisting_return": _delivered("date ticker", "1", "return from the last price to what holders got"),
    "stated": _delivered("date ticker char", "mixed", "characteristics in the row of their source", "float32"),
    "risk_free": _delivered("date", "1", "risk-free return over the period"),
    "factors": _delivered("date observed_factor", "1", "observed factor return over the period"),
    "classified": _variable(
        "date ticker",
        "int16",
        "1",
        "industry at date, as a position along industry_name",
        "-1: nothing was delivered; -2: delivered as unknown.",
        required=False,
    ),
}
"""Variables of the record of a cube, from which it is derived: all that deliveries have said and not taken back."""

_UNCOVERED = "NaN: the stock is not covered, its characteristics or history do not suffice."
_FORECAST = "NaN before the first refit: no forecast was made."
_EXPLAINED = "Of the last fit, over the 252 dates before it; only where loadings are functions of characteristics."
_BENCHMARK = "The config in the manifest names the benchmark. NaN: the portfolio has none"
_PORTFOLIO = "NaN before the first refit, or where a held stock is not covered."

VERSION: dict[str, Variable] = {
    "loadings": _variable(
        "date ticker factor",
        "float32",
        "1",
        "factor loadings known at the close of date",
        "Risk of the next period is X Omega X' + D. Over loading_scale, where there is one, they explain the return of "
        f"the next date: r[t] = X[t-1] f[t] + e[t]. {_UNCOVERED}",
    ),
    "loading_scale": _variable(
        "date ticker",
        "float32",
        "1",
        "by what the loadings of a stock were multiplied, so that the model's variance of it is the one forecast",
        f"loadings / loading_scale are those of the model of returns. {_UNCOVERED}",
        required=False,
    ),
    "imputed": _variable(
        "date ticker",
        "bool",
        "1",
        "whether the loadings are the cross-section's mean",
        "True for a traded stock whose own history or characteristics do not suffice yet.",
    ),
    "factor_returns": _variable(
        "date factor",
        "float64",
        "1",
        "factor return over the period that ends at date",
        "NaN: it could not be computed.",
    ),
    "omega": _variable(
        "date factor factor_", "float64", "1", "factor covariance per period, as of the close of date", _FORECAST
    ),
    "specific_variance": _variable(
        "date ticker",
        "float32",
        "1",
        "variance of the specific return per period, as of the close of date",
        f"{_FORECAST} {_UNCOVERED}",
    ),
    "weights": CUBE["weights"],
    "portfolio_variance": _variable(
        "portfolio date",
        "float64",
        "1",
        "forecast variance of the portfolio over the next period",
        f"w' X Omega X' w + w' D w from loadings, omega, specific_variance and weights of the same date. {_PORTFOLIO}",
    ),
    "portfolio_variance_systematic": _variable(
        "portfolio date", "float64", "1", "systematic part of the portfolio variance, w' X Omega X' w", _PORTFOLIO
    ),
    "portfolio_variance_specific": _variable(
        "portfolio date", "float64", "1", "specific part of the portfolio variance, w' D w", _PORTFOLIO
    ),
    "portfolio_variance_factor": _variable(
        "portfolio date factor",
        "float64",
        "1",
        "Euler contribution of a factor to the portfolio variance",
        f"The contributions of all factors sum to the systematic part. {_PORTFOLIO}",
    ),
    "portfolio_exposure": _variable(
        "portfolio date factor",
        "float64",
        "1",
        "exposure of the portfolio to a factor, X' w",
        f"From the loadings of risk, as published. {_PORTFOLIO}",
        required=False,
    ),
    "portfolio_beta": _variable(
        "portfolio date",
        "float64",
        "1",
        "forecast beta of the portfolio to its benchmark over the next period, Cov(r_P, r_B) / Var(r_B)",
        f"{_BENCHMARK}, or the benchmark has no risk. {_PORTFOLIO}",
        required=False,
    ),
    "tracking_error": _variable(
        "portfolio date",
        "float64",
        "1",
        "forecast volatility of the portfolio's weights less those of its benchmark over the next period",
        f"{_BENCHMARK}; before the first refit, or where a stock that is not covered has an active weight.",
        required=False,
    ),
    "portfolio_return": _variable(
        "portfolio date",
        "float64",
        "1",
        "realised excess return at date of the weights of the date before",
        "Refuted returns count as missing, suspected ones count. NaN: weights or too many returns are missing.",
    ),
    "attribution_factor": _variable(
        "portfolio date factor",
        "float64",
        "1",
        "part of portfolio_return that a factor brought: exposure of the date before, times factor_returns",
        "From the loadings of returns, which are loadings over loading_scale. Factors and attribution_specific sum to "
        "portfolio_return; NaN where that or an exposure is missing.",
        required=False,
    ),
    "attribution_specific": _variable(
        "portfolio date",
        "float64",
        "1",
        "part of portfolio_return that no factor brought",
        "See attribution_factor.",
        required=False,
    ),
    "portfolio_return_without_suspects": _variable(
        "portfolio date",
        "float64",
        "1",
        "realised excess return at date of the weights of the date before, without suspected returns",
        "Every return that a check suspects counts as missing. NaN: weights or too many returns are missing.",
        required=False,
    ),
    "expected_returns": _variable(
        "date ticker",
        "float32",
        "1",
        "expected excess return over the next period, alpha set to 0",
        f"Loadings times the mean factor return of the training sample. {_UNCOVERED}",
        required=False,
    ),
    "total_r2": _variable(
        "date", "float64", "1", "uncentred total R2 of the cross-section", "NaN: nothing to explain."
    ),
    "predictive_r2": _variable(
        "date", "float64", "1", "uncentred predictive R2 of the cross-section", "NaN: nothing to explain."
    ),
    "total_sst": _variable(
        "date",
        "float64",
        "1",
        "sum of squared excess returns that total_r2 is a share of",
        "R2 over many dates is 1 - sum((1 - total_r2) total_sst) / sum(total_sst).",
    ),
    "predictive_sst": _variable(
        "date",
        "float64",
        "1",
        "sum of squared excess returns that predictive_r2 is a share of",
        "As total_sst: it weighs the dates where R2 is taken over many.",
    ),
    "qlike": _variable(
        "portfolio date", "float64", "1", "QLIKE loss of the variance forecast, log h + r^2 / h", _FORECAST
    ),
    "standardised_return": _variable(
        "portfolio date", "float64", "1", "portfolio return over its forecast volatility", _FORECAST
    ),
    "variance_ratio_by_rank": _variable(
        "rank date",
        "float64",
        "1",
        "squared return over forecast variance, mean over the model's own eigenportfolios of these ranks",
        "Of X Omega X' + D as of the date before, from the largest eigenvalue down, over covered stocks with a return "
        "that no check suspects. The root of its mean over dates is the bias statistic. NaN: no forecast was made the "
        "date before, or there are no such ranks.",
        required=False,
    ),
    "qlike_without_suspects": _variable(
        "portfolio date",
        "float64",
        "1",
        "QLIKE loss of the variance forecast at portfolio_return_without_suspects",
        _FORECAST,
        required=False,
    ),
    "standardised_return_without_suspects": _variable(
        "portfolio date",
        "float64",
        "1",
        "portfolio_return_without_suspects over the forecast volatility",
        _FORECAST,
        required=False,
    ),
    "out_of_sample": _variable(
        "date",
        "bool",
        "1",
        "whether the fit in force at date was made before it",
        "False: the loadings and factors of this date come from a fit that has seen it.",
    ),
    "premia": _variable(
        "factor", "float64", "1", "mean factor return per period over the last training sample", "Of the last fit."
    ),
    "characteristic_importance": _variable(
        "char",
        "float64",
        "1",
        "drop in total R2 when the characteristic is set to its median",
        f"{_EXPLAINED} Other characteristics and factor returns are as they were. Negative: the fit would be closer "
        "without it.",
        required=False,
    ),
    "response": _variable(
        "char level factor",
        "float32",
        "1",
        "loading of a stock with one characteristic at response_value and all others at their median",
        f"{_EXPLAINED} NaN: the characteristic does not vary, or the factor is that of estimation error.",
        required=False,
    ),
    "response_value": _variable(
        "char level",
        "float64",
        "1",
        "value of the characteristic as the model sees it, even from its 1% to its 99% quantile",
        f"{_EXPLAINED} NaN: it does not vary.",
        required=False,
    ),
}
"""Variables of a published version. The label of every row is its as-of date. See `schemas.statistics` for more."""


class SourceFile(Frozen):
    """One input as it was read."""

    name: str = Field(description="File name, query digest or packaged dataset; never a URL with secrets.")
    sha256: str


class Ingest(Frozen):
    """One delivery, or one correction by hand, of which something is left in a snapshot."""

    ingest_key: str
    kind: Literal["full", "increment", "correction"]
    spans: tuple[tuple[date, date], ...] = Field(
        description="First and last dates of what is left of it: a later full delivery replaces all of its own span."
    )
    sources: tuple[SourceFile, ...] = ()
    reason: str = Field(default="", description="What a correction did, and why.")


class Criterion(Frozen):
    """One thing that the gate asks of a version."""

    name: str
    passed: bool
    value: float | None = Field(description="What the version has.")
    champion: float | None = Field(default=None, description="What the champion has on the same dates; None if alone.")
    limit: str = Field(description="What is asked for, in words.")
    note: str | None = Field(
        default=None, description="Where it failed, if that is one place among many, or what the number rests on."
    )
    statistic: float | None = Field(
        default=None, description="Of the test whose p-value the version has, if it is one."
    )


class GateDecision(Frozen):
    """Whether a version may become `latest`, and why."""

    passed: bool
    suspected_returns: SuspectedReturns | None = Field(
        default=None, description="Whether suspected returns counted; None if no returns were looked at, or before."
    )
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...] = ()
    champion: str | None = Field(default=None, description="Version it was compared with; None if there was none.")
    first_date: date | None = Field(default=None, description="First of the held-out dates that both were scored on.")
    last_date: date | None = None
    dates: int = Field(default=0, description="Number of held-out dates that both were scored on.")


class Manifest(Frozen):
    """Everything a version was made from and of; enough to make it again (P4)."""

    format_version: Literal[1] = 1
    universe: Name
    model: Name
    version: str
    as_of: date
    made_by: Literal["retrain", "update"] = Field(
        default="retrain", description="`update`: rows up to the parent's as-of date are the parent's, bit for bit."
    )
    parent: str | None = Field(default=None, description="Version that an update continues.")
    created_at: datetime
    input_digest: str = Field(description="Hash of all cube rows up to the as-of date that the numbers depend on.")
    snapshot_id: str
    ingest_key: str
    sources: tuple[SourceFile, ...] = Field(description="Every input of which the snapshot holds something.")
    ingests: tuple[Ingest, ...] = Field(default=(), description="The deliveries that brought them, oldest first.")
    code_version: str = Field(description="Hash of all code that can change the numbers; the version's name holds it.")
    source_version: str = Field(description="Hash of all source files of the installation that published.")
    config_digest: str
    config: dict[str, Any]
    kind: str
    params: dict[str, Any]
    state_meta: dict[str, Any] = Field(description="The part of the model's state that is not arrays.")
    refits: tuple[date, ...]
    metrics: dict[str, float | None]
    gate: GateDecision
    packages: dict[str, str] = Field(description="Versions of the libraries that made the numbers.")
    arithmetic: dict[str, str] = Field(
        description="What decides the last bits, of the machine that published: processor, BLAS, order of sums."
    )
    checksums: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of every file of the version, by path."
    )

    def __str__(self) -> str:
        """Name the version as users do: ``universe/model/version``."""
        return f"{self.universe}/{self.model}/{self.version}"


class Promotion(Frozen):
    """One entry of the history of `latest`."""

    version: str
    previous: str | None = Field(description="The champion until then; None if there was none.")
    promoted_at: AwareDatetime
    by: str
    reason: str


def differing_fields(one: Frozen, other: Frozen) -> list[str]:
    """Names of the fields in which two manifests of one kind differ; when they were made does not count."""
    before, after = (each.model_dump(mode="json", exclude={"created_at"}) for each in (one, other))
    return sorted(field for field in before if before[field] != after[field])


def validate(dataset: xr.Dataset, contract: dict[str, Variable], error: type[FactorcubeError], what: str) -> None:
    """Check names, dimensions and dtypes of a dataset against a contract.

    Parameters
    ----------
    dataset : xarray.Dataset
        What is about to be written.
    contract : dict[str, Variable]
        `CUBE`, or what `schemas.statistics.version_contract` gives.
    error : type[FactorcubeError]
        The error to raise.
    what : str
        What is being validated, for the message.

    Raises
    ------
    FactorcubeError
        Of the given type, if a variable is missing, unknown, or of another shape or type.
    """
    import numpy as np  # not at the top: most commands validate no dataset, and this takes a second
    import pandera.xarray as pa
    from pandera.errors import SchemaErrors

    unknown = sorted(set(map(str, dataset.data_vars)) - set(contract))
    if unknown:
        raise error(f"{what}: variables {', '.join(unknown)} are not in the contract")
    schema = pa.DatasetSchema(
        data_vars={
            name: pa.DataVar(
                dtype=np.dtype(variable.dtype), dims=variable.dims, required=variable.required, nullable=True
            )
            for name, variable in contract.items()
        }
    )
    try:  # without labels, which pandera would align anew for every variable
        schema.validate(dataset.drop_vars(dataset.coords), lazy=True)
    except SchemaErrors as failure:
        reasons = [f"{getattr(one.schema, 'name', None) or 'dataset'}: {one}" for one in failure.schema_errors]
        raise error(f"{what}: {'; '.join(reasons)}") from None
