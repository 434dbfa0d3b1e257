"""How weights are allocated by a risk model: the document that a config, the command line and an artifact share.

Here belong the fields that decide an allocation. How it is made from them belongs in `models.allocation`, what is
published of it in `schemas.allocated`, how its weights become a portfolio of a cube in `schemas.spec`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.base import Frozen, Name

Method = Literal[
    "minimum_variance",
    "maximum_diversification",
    "risk_parity",
    "factor_risk_parity",
    "mean_variance",
    "hierarchical_risk_parity",
]


_LARGEST = 1e6


class Limit(Frozen):
    """A least and a largest value, of which one may be left out."""

    lower: float | None = Field(default=None, ge=-_LARGEST, le=_LARGEST, description="Least value; no limit if null.")
    upper: float | None = Field(default=None, ge=-_LARGEST, le=_LARGEST, description="Largest value; no limit if null.")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("give lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower is {self.lower:g} and upper {self.upper:g}; the first may not be larger")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """Both ends, infinite where there is no limit."""
        return -math.inf if self.lower is None else self.lower, math.inf if self.upper is None else self.upper


class GroupLimit(Limit):
    """Limits of the net weight of a group of stocks."""

    name: str = Field(min_length=1, description="An industry of the universe, or what a list of tickers is called.")
    tickers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Tickers of the group; those of the industry of that name if null."
    )


class ExposureLimit(Limit):
    """Limits of the exposure X'w to a factor, in the units of the published loadings."""

    factor: str = Field(min_length=1, description="Name of the factor.")


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

    groups: tuple[GroupLimit, ...] = Field(default=(), description="Limits of the weight of groups of stocks.")
    exposures: tuple[ExposureLimit, ...] = Field(default=(), description="Limits of the exposure to factors.")

    @field_validator("groups", "exposures")
    @classmethod
    def _once(cls, limits: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [limit.factor if isinstance(limit, ExposureLimit) else limit.name for limit in limits]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"{doubled[0]} is limited twice; give lower and upper in one entry")
        return limits

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        limited = self.max_turnover is not None or self.groups or self.exposures
        if self.method == "hierarchical_risk_parity" and (limited or not self.long_only):
            raise ValueError(
                "hierarchical_risk_parity is long only and takes a cap alone; leave max_turnover, groups and exposures "
                "out"
            )
        return self

    @property
    def by_industry(self) -> bool:
        """Whether a limit is of an industry of the universe."""
        return any(group.tickers is None for group in self.groups)


class DeclaredAllocation(AllocationSpec):
    """An allocation that every run makes by the champion of one of its models."""

    model: Name = Field(description="Model by whose champion weights are made, as of its last date.")

    @property
    def spec(self) -> AllocationSpec:
        """What is published with the weights: how they are made, whatever model they are made by."""
        return AllocationSpec.model_validate(self.model_dump(exclude={"model"}))
