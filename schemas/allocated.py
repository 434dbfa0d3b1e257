"""What published weights hold: their variables, and the manifest of what they were made from.

Here belongs the contract of an artifact of `factorcube allocate`. What decides an allocation belongs in
`schemas.allocation`, how the files are written in `storage.allocations`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field

from schemas.allocation import AllocationSpec
from schemas.base import Frozen, Name
from schemas.contracts import Variable

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
