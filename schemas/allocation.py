"""How weights are allocated by a risk model: the document that a config, the command line and an artifact share.

Here belong the fields that decide an allocation. How it is made from them belongs in `models.allocation`, what is
published of it in `schemas.allocated`, how its weights become a portfolio of a cube in `schemas.spec`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen, Name

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
