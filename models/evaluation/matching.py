"""What differs between two versions: their axes, numbers, metrics and inputs.

Here belongs the matching of two versions, span by span. The arithmetic of matched arrays is in `differences`; whether
one of them should be the champion is `gate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.evaluation.differences import Spread, covariance_distance, spread
from models.families.rotation import align
from schemas.contracts import Manifest
from schemas.differences import (
    ArrayDifference,
    AxisDifference,
    CovarianceDifference,
    InputDifference,
    VersionDifference,
)

_AXES = ("date", "ticker", "factor", "portfolio")
_INPUTS = ("made_by", "parent", "input_digest", "snapshot_id", "ingest_key", "code_version", "kind")
_ABSENT = "absent"
_BLOCK_DATES = 256


def compare(
    pair: tuple[xr.Dataset, xr.Dataset], manifests: tuple[Manifest, Manifest], *, latent: bool
) -> VersionDifference:
    """Compare two versions; 256 dates of each are in memory at a time.

    Parameters
    ----------
    pair : (xarray.Dataset, xarray.Dataset)
        As `schemas.contracts.VERSION` says; they may be lazy.
    manifests : (Manifest, Manifest)
        What they were made from.
    latent : bool
        Whether the factors of both are known up to a rotation only.
    """
    axes = {axis: _axis(pair[0], pair[1], axis) for axis in _AXES}
    rotation, alignment = _rotation(pair, latent=latent)
    found: dict[str, Spread] = {}
    turned: dict[str, Spread] = {}
    distances, variances = [np.empty(0)], [np.empty((axes["portfolio"].common, 0))]
    for first, second in _blocks(*pair):
        _gather(found, first, second)
        if "omega" in first:
            distances.append(_covariances(first, second))
            variances.append(_relative(first["portfolio_variance"], second["portfolio_variance"]))
            if rotation is not None:
                _gather(turned, first[list(_ROTATED)], _rotated(second, rotation, first["factor"].values))
    arrays = tuple(array_difference(name, sums) for name, sums in sorted(found.items()))
    same = all(array.identical for array in arrays) and pair[0].data_vars.keys() == pair[1].data_vars.keys()
    return VersionDifference(
        one=str(manifests[0]),
        other=str(manifests[1]),
        identical=same and all(not axis.added and not axis.removed for axis in axes.values()),
        identical_where_common=same,
        axes=axes,
        arrays=arrays,
        alignment=alignment,
        aligned=tuple(array_difference(name, sums) for name, sums in sorted(turned.items())),
        covariance=_summary(np.concatenate(distances)),
        portfolio_variance=_largest(pair, np.concatenate(variances, axis=1)),
        metrics=_metrics(*manifests),
        inputs=tuple(_inputs(*manifests)),
    )


def _blocks(one: xr.Dataset, other: xr.Dataset) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """Yield both, loaded, on their common dates, tickers and portfolios; first what has no dates."""
    labels = {dim: _both(one, other, dim) for dim in ("ticker", "portfolio")}
    narrow = [version.sel(labels).drop_attrs() for version in (one, other)]
    timeless = [version[[name for name in version if "date" not in version[name].dims]] for version in narrow]
    yield timeless[0].load(), timeless[1].load()
    first, second = (version[[name for name in version if "date" in version[name].dims]] for version in narrow)
    dates = _both(one, other, "date")
    for start in range(0, max(len(dates), 1), _BLOCK_DATES):
        span = dates[start : start + _BLOCK_DATES]
        yield first.sel(date=span).load(), second.sel(date=span).load()


def _both(one: xr.Dataset, other: xr.Dataset, dim: str) -> list[Any]:
    there = set(other.indexes[dim])
    return [label for label in one.indexes[dim] if label in there]


def _axis(one: xr.Dataset, other: xr.Dataset, dim: str) -> AxisDifference:
    common = set(_both(one, other, dim))
    added, removed = ([label for label in each.indexes[dim] if label not in common] for each in (other, one))
    return AxisDifference(common=len(common), added=_texts(dim, added), removed=_texts(dim, removed))


def _texts(dim: str, labels: list[Any]) -> tuple[str, ...]:
    return tuple(str(label.date()) if dim == "date" else str(label) for label in labels)


def _common(one: xr.Dataset, other: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Keep the variables and factors that both have."""
    names = [str(name) for name in one if name in other]
    labels = {dim: _both(one, other, dim) for dim in ("factor", "factor_") if dim in one.dims and dim in other.dims}
    return one[names].sel(labels), other[names].sel(labels)


def _gather(found: dict[str, Spread], one: xr.Dataset, other: xr.Dataset) -> None:
    first, second = _common(one, other)
    for name in map(str, first):
        mine, theirs = first[name].values, second[name].transpose(*first[name].dims).values
        found[name] = found.get(name, Spread()) + spread(mine, theirs)


def array_difference(name: str, sums: Spread) -> ArrayDifference:
    """Return the distance of two arrays as it is shown."""
    return ArrayDifference(
        name=name,
        identical=sums.identical,
        compared=sums.compared,
        unmatched=sums.unmatched,
        maximum=sums.maximum,
        rms=sums.rms,
        relative=sums.relative,
    )


_ROTATED = ("loadings", "factor_returns", "omega")


def _rotation(pair: tuple[xr.Dataset, xr.Dataset], *, latent: bool) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return the rotation of the second's latent factors onto the first's, and what was done in words."""
    if not latent:
        return None, "not aligned: factors are compared by name"
    if pair[0].sizes["factor"] != pair[1].sizes["factor"]:
        return None, f"not aligned: {pair[0].sizes['factor']} factors against {pair[1].sizes['factor']}"
    dates = _both(*pair, "date")
    if not dates:
        return None, "not aligned: 0 common dates"
    one, other = (each["factor_returns"].sel(date=dates).transpose("date", "factor").values for each in pair)
    if spread(one, other).identical:
        return None, "not aligned: the factor returns are identical"
    known = int((np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)).sum())
    if known < one.shape[1]:
        return None, f"not aligned: {known} common dates with factor returns"
    return align(other, one).astype(np.float64), f"latent factors aligned by rotation over {known} common dates"


def _rotated(version: xr.Dataset, rotation: npt.NDArray[np.float64], factors: npt.NDArray[Any]) -> xr.Dataset:
    """Turn loadings, factor returns and Omega into the coordinates of the other version, and name them as it does."""
    turned = version[list(_ROTATED)].copy()
    for name in ("loadings", "factor_returns"):
        values = turned[name].transpose(..., "factor")
        turned[name] = values.copy(data=values.values.astype(np.float64) @ rotation)
    omega = turned["omega"].transpose(..., "factor", "factor_")
    turned["omega"] = omega.copy(data=rotation.T @ omega.values @ rotation)
    return turned.assign_coords(factor=factors, factor_=factors)


def _covariances(one: xr.Dataset, other: xr.Dataset) -> npt.NDArray[np.float64]:
    loadings, omegas = (
        [each[name].transpose(*dims).values for each in (one, other)]
        for name, dims in (("loadings", ("date", "ticker", "factor")), ("omega", ("date", "factor", "factor_")))
    )
    return covariance_distance((loadings[0], loadings[1]), (omegas[0], omegas[1]))


def _relative(one: xr.DataArray, other: xr.DataArray) -> npt.NDArray[np.float64]:
    """Relative difference of portfolio variances (portfolio, date)."""
    mine, theirs = (each.transpose("portfolio", "date").values.astype(np.float64) for each in (one, other))
    return np.asarray(np.abs(theirs - mine) / np.where(mine > 0.0, mine, np.nan), dtype=np.float64)


def _largest(pair: tuple[xr.Dataset, xr.Dataset], relative: npt.NDArray[np.float64]) -> dict[str, float | None]:
    found = {}
    for name, row in zip(_both(*pair, "portfolio"), relative, strict=True):
        known = row[np.isfinite(row)]
        found[str(name)] = float(known.max()) if known.size else None
    return found


def _summary(distances: npt.NDArray[np.float64]) -> CovarianceDifference:
    known = distances[np.isfinite(distances)]
    if not known.size:
        return CovarianceDifference(dates=0, mean=None, maximum=None)
    return CovarianceDifference(dates=known.size, mean=float(known.mean()), maximum=float(known.max()))


def _metrics(one: Manifest, other: Manifest) -> dict[str, tuple[float | None, float | None]]:
    return {name: (one.metrics.get(name), other.metrics.get(name)) for name in {**one.metrics, **other.metrics}}


def _inputs(one: Manifest, other: Manifest) -> Iterator[InputDifference]:
    """Yield what the versions were made from where it differs, config keys by name."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in _INPUTS}
    for prefix, get in (
        ("config", lambda manifest: manifest.config),
        ("params", lambda manifest: manifest.params),
        ("packages", lambda manifest: manifest.packages),
        ("arithmetic", lambda manifest: manifest.arithmetic),
        ("source", lambda manifest: {source.name: source.sha256 for source in manifest.sources}),
    ):
        first, second = (dict(_leaves(get(manifest), prefix)) for manifest in (one, other))
        pairs |= {name: (first.get(name, _ABSENT), second.get(name, _ABSENT)) for name in {**first, **second}}
    for name, (mine, theirs) in pairs.items():
        if mine != theirs:
            yield InputDifference(name=name, one=str(mine), other=str(theirs))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested keys and lists, by dotted path."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple) and value:
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{place}")
    else:
        yield path, value
