"""What differs between two published versions, as it is shown and kept.

Here belong the words. How versions are matched and compared belongs in `models.evaluation.matching`.
"""

from __future__ import annotations

from pydantic import Field

from schemas.base import Frozen


class AxisDifference(Frozen):
    """Labels of one axis."""

    common: int
    added: tuple[str, ...] = Field(description="Only the second version has them.")
    removed: tuple[str, ...] = Field(description="Only the first version has them.")


class ArrayDifference(Frozen):
    """One variable over the labels that both versions have."""

    name: str
    identical: bool = Field(description="Bit for bit.")
    compared: int = Field(description="Entries known in both.")
    unmatched: int = Field(description="Entries known in one of the two only.")
    maximum: float = Field(description="Largest absolute difference.")
    rms: float | None = Field(description="Root mean square of the differences.")
    relative: float | None = Field(description="Norm of the differences over the norm of the first.")


class CovarianceDifference(Frozen):
    """Systematic covariances of stocks, X Omega X': the same however factors are rotated."""

    dates: int
    mean: float | None = Field(description="Mean over dates of the relative Frobenius distance.")
    maximum: float | None


class InputDifference(Frozen):
    """One thing that the versions were made from, and that is not the same."""

    name: str
    one: str
    other: str


class VersionDifference(Frozen):
    """Everything that differs between two versions."""

    one: str
    other: str
    identical: bool = Field(description="The same axes and the same numbers, bit for bit.")
    identical_where_common: bool = Field(description="The same numbers, bit for bit, on the labels that both have.")
    axes: dict[str, AxisDifference]
    arrays: tuple[ArrayDifference, ...]
    alignment: str = Field(description="Whether latent factors of the second were turned towards those of the first.")
    aligned: tuple[ArrayDifference, ...] = Field(description="The same after the rotation.")
    covariance: CovarianceDifference
    portfolio_variance: dict[str, float | None] = Field(description="Largest relative difference, by portfolio.")
    metrics: dict[str, tuple[float | None, float | None]]
    inputs: tuple[InputDifference, ...]
