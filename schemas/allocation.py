"""How weights are allocated by a risk model: the document that a config, the command line and an artifact share.

Here belong the fields that decide an allocation, and what an artifact of it holds. How it is made from them belongs in
`models.allocation`, how its weights become a portfolio of a cube in `schemas.spec`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen, Name
from schemas.contracts import Variable

Method = Literal[
    "minimum_variance",
    "maximum_diversification",
    "risk_parity",
    "factor_risk_parity",
    "mean_variance",
    "hierarchical_risk_parity",
]


class AllocationSpec(Frozen):
    """What to allocate by, and within which limits; weights sum to 1."""

    name: Name = Field(description="Name of the allocation, under which its weights are published.")
    method: Method = Field(default="minimum_variance", description="What the weights are best at.")
    long_only: bool = Field(default=True, description="Whether no weight may be negative.")
    cap: float | None = Field(default=None, gt=0.0, le=1e3, description="Largest weight of a ticker; no limit if null.")
    risk_aversion: float = Field(
        default=10.0, gt=0.0, le=1e9, description="Of mean_variance: mu'w - risk_aversion / 2 w' Sigma w."
    )
    max_turnover: float | None = Field(
        default=None,
        ge=0.0,
        le=1e3,
        description="Most that the absolute changes may sum to, from the weights that were published last under this "
        "name; no limit if null, and for the first ones.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "hierarchical_risk_parity" and (self.max_turnover is not None or not self.long_only):
            raise ValueError("hierarchical_risk_parity is long only and takes a cap alone; leave max_turnover out")
        return self


ALLOCATION: dict[str, Variable] = {
    "weights": Variable(
        dims=("ticker",),
        dtype="float64",
        units="1",
        long_name="portfolio weight",
        comment="As of the close of the as-of date, to be held from the close of the date after it. 0: not held.",
    ),
    "risk_contribution": Variable(
        dims=("ticker",),
        dtype="float64",
        units="1",
        long_name="Euler contribution to the forecast variance per period",
        comment="They sum to the variance.",
    ),
    "exposures": Variable(
        dims=("factor",),
        dtype="float64",
        units="1",
        long_name="loadings of the portfolio",
        comment="Weights times the loadings of the version that the weights were made from.",
    ),
}
"""Variables of published weights."""


class AllocationManifest(Frozen):
    """Everything that published weights were made from and of (P4)."""

    format_version: Literal[1] = 1
    universe: Name
    name: Name
    as_of: date
    version: str = Field(description="The version that they were made from: universe/model/version.")
    previous: date | None = Field(description="As-of date of the weights that turnover was counted from.")
    spec: AllocationSpec
    variance: float = Field(description="Forecast variance per period.")
    turnover: float | None = Field(
        description="Sum of absolute changes from the previous weights; None if there were none."
    )
    created_at: datetime
    code_version: str = Field(description="Hash of all code that can change the weights.")
    source_version: str = Field(description="Hash of all source files of the installation that published.")
    packages: dict[str, str] = Field(description="Versions of the libraries that made the numbers.")
    arithmetic: dict[str, str] = Field(description="What decides the last bits, of the machine that published.")
    checksums: dict[str, str] = Field(default_factory=dict, description="SHA-256 of every file, by path.")

    def __str__(self) -> str:
        """Name the weights as users do: ``universe/name/date``."""
        return f"{self.universe}/{self.name}/{self.as_of}"
