"""What a published version says of its last fit beside the contract: the inference that each model offers.

Here belongs how a statistic is declared and what it is as a variable. Which ones there are, and what they mean, is for
each family of models to say: in its `STATISTICS`, from a name to its meaning. A standard error may be one of each
factor, or of each stock and factor: the axes are the array's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.contracts import VERSION, Variable

if TYPE_CHECKING:
    import xarray as xr

STATISTIC_DIMS = ("ticker", "penalty", "char", "observed_factor", "factor")
"""Axes that a statistic may have, in the order in which they are stored."""

NOT_MADE = "Not made: "
"""How the comment of a number begins that the last fit could not give; the reason follows."""

_COMMENT = "Of the last fit. NaN: not known, or the stock is not covered."


def declared(family: type) -> dict[str, str]:
    """Return the meaning of every statistic that a class and its parents declare, those of the parents first."""
    found: dict[str, str] = {}
    for one in reversed(family.__mro__):
        found |= vars(one).get("STATISTICS", {})
    return found


def statistics_of(dataset: xr.Dataset) -> dict[str, str]:
    """Return the meaning of every statistic that a version has, as its variables say it themselves in `long_name`."""
    return {
        str(name): str(array.attrs["long_name"])
        for name, array in dataset.data_vars.items()
        if name not in VERSION and "long_name" in array.attrs and set(array.dims) <= set(STATISTIC_DIMS)
    }


def version_contract(dataset: xr.Dataset, meanings: Mapping[str, str] | None = None) -> dict[str, Variable]:
    """Return the contract of a published version: `VERSION`, and the statistics that it has, over the axes they have.

    A statistic that brings a comment, such as why it was not made, keeps it.

    Parameters
    ----------
    dataset : xarray.Dataset
        A version. Variables that are no statistic, or have other axes than `STATISTIC_DIMS`, stay out of the contract
        unless `VERSION` names them.
    meanings : mapping of str to str, optional
        What the version's family declares, for a version that is being made. Default, for one that is read:
        `statistics_of` the dataset.
    """
    contract = dict(VERSION)
    for name, meaning in (statistics_of(dataset) if meanings is None else meanings).items():
        if name in VERSION or name not in dataset or not set(dataset[name].dims) <= set(STATISTIC_DIMS):
            continue
        contract[name] = Variable(
            dims=tuple(dim for dim in STATISTIC_DIMS if dim in dataset[name].dims),
            dtype="float64",
            units="1",
            long_name=meaning,
            comment=str(dataset[name].attrs.get("comment", _COMMENT)),
            required=False,
        )
    return contract
