"""The gate: whether a version may become the champion, and why, in numbers and in sentences.

Here belongs the judgement alone, a pure function of a version, its champion and what happened. The scores come from
`models.evaluation.forecasts` and `models.evaluation.comparison`; what follows from the decision is in `offering`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from models.arrays import Float64Array
from models.evaluation.comparison import CHALLENGER, CHAMPION, compare, held_out_dates
from models.evaluation.forecasts import WITHOUT_SUSPECTS
from models.evaluation.superiority import model_confidence_set
from models.inference.diebold_mariano import diebold_mariano
from schemas.contracts import Criterion, GateDecision, Manifest
from schemas.spec import GateSpec

_LEAST_COVERAGE = 0.5
"""Share of the stocks that the parent covers below which the rows of an update are not believed."""

_RELATIVE = ("total R2 against the champion", "QLIKE against the champion", "coverage against the champion")
_TESTED = "Diebold-Mariano p-value against the champion"
_IN_SET = "model confidence set p-value beside the champion"
_NO_QLIKE = "the challenger has no QLIKE, for which it is refused"
_TOO_FEW = "{} date(s) with a QLIKE of both"


def decide(
    criteria: GateSpec,
    metrics: Mapping[str, float | None],
    challenger: xr.Dataset,
    champion: tuple[str, xr.Dataset] | None,
    returns: xr.DataArray,
    mask: xr.DataArray,
) -> GateDecision:
    """Decide whether a version may become the champion.

    Parameters
    ----------
    criteria : GateSpec
        Limits and tolerances.
    metrics : dict[str, float | None]
        Metrics of the challenger over its own out-of-sample dates.
    challenger : xarray.Dataset
        As it will be published.
    champion : tuple[str, xarray.Dataset] or None
        Version and dataset of the present champion; None if there is none.
    returns, mask : xarray.DataArray
        (date, ticker) excess returns that count, as ``criteria.suspected_returns`` says
        (`models.forecasting.held.counted`), and estimation universe, on which both are scored.

    Returns
    -------
    GateDecision
        Passed if every criterion is. A criterion that the challenger leaves without a number fails; one that has
        nothing to compare on says so and stands for nothing. Reasons are those that failed, or all.
    """
    judged = [*_absolute(criteria, metrics), _forecasts(challenger, _to_forecast(challenger))]
    facts: dict[str, object] = {"suspected_returns": criteria.suspected_returns}
    if champion is not None:
        version, other = champion
        dates = held_out_dates(challenger, other, returns, criteria.window)
        facts |= {"champion": version, "dates": len(dates)}
        if len(dates):
            facts |= {"first_date": dates[0].date(), "last_date": dates[-1].date()}
            judged += _relative(criteria, compare(challenger, other, returns, mask, dates))
        else:
            judged += [_unasked(name, "no held-out date in common with the champion") for name in _asked_for(criteria)]
    passed = all(one.passed for one in judged)
    reasons = tuple(sentence(one) for one in judged if passed or not one.passed)
    return GateDecision.model_validate({"passed": passed, "reasons": reasons, "criteria": tuple(judged), **facts})


def believe(manifest: Manifest, rows: xr.Dataset, n_old: int) -> GateDecision:
    """Judge the new rows of an update: it inherits the decision about its parent as long as they can be believed.

    Every defined portfolio needs a finite forecast, and at least half of the stocks that the parent covers must be
    covered.

    Parameters
    ----------
    manifest : Manifest
        Of the version that is continued.
    rows : xarray.Dataset
        All rows of the new version.
    n_old : int
        How many of them are the parent's.
    """
    new = rows.isel(date=slice(n_old, None))
    before, covered = int(_covered(rows.isel(date=n_old - 1))), int(_covered(new).min())
    criteria = (
        _forecasts(new, _defined(new)),
        Criterion(
            name="covered stocks",
            passed=covered >= _LEAST_COVERAGE * before,
            value=covered,
            champion=float(before),
            limit=f"at least {_LEAST_COVERAGE:.0%} of the version that is continued",
        ),
    )
    passed = all(one.passed for one in criteria)
    reasons = tuple(sentence(one) for one in criteria if passed or not one.passed)
    inherited = f"continues {manifest.version}: {'; '.join(manifest.gate.reasons)}"
    first, last = (day.date() for day in new.indexes["date"][[0, -1]])
    return GateDecision(
        passed=passed,
        reasons=(*reasons, inherited),
        criteria=criteria,
        champion=manifest.version,
        first_date=first,
        last_date=last,
        dates=new.sizes["date"],
    )


def _defined(rows: xr.Dataset) -> xr.DataArray:
    defined: xr.DataArray = rows["weights"].notnull().all("ticker")
    return defined


def _to_forecast(version: xr.Dataset) -> xr.DataArray:
    """Return (portfolio, date) which variances a version must have.

    Those of the dates on which a portfolio is defined and there is an Omega, and on the last date of each that is
    defined then, or never was.
    """
    defined, last = _defined(version), version["date"] == version["date"][-1]
    known = xr.apply_ufunc(np.isfinite, version["omega"]).all(["factor", "factor_"])
    wanted: xr.DataArray = (defined & (known | last)) | (last & ~defined.any("date"))
    return wanted


def _forecasts(rows: xr.Dataset, wanted: xr.DataArray) -> Criterion:
    """Ask for a finite variance of each portfolio and date that is wanted."""
    absent = (wanted & ~np.isfinite(rows["portfolio_variance"])).transpose("portfolio", "date")
    n_wanted, n_absent, note = int(wanted.sum()), int(absent.sum()), None
    if n_absent:
        portfolio, date = (int(places[0]) for places in np.nonzero(absent.values))
        day = rows.indexes["date"][date].date()
        more = f" and {n_absent - 1} time(s) more" if n_absent > 1 else ""
        note = f"there is none of {absent['portfolio'].values[portfolio]} on {day}{more}"
    return Criterion(
        name="portfolios with a forecast",
        passed=not n_absent,
        value=1.0 - n_absent / n_wanted if n_wanted else 1.0,
        limit="all that are defined",
        note=note,
    )


def _covered(rows: xr.Dataset) -> xr.DataArray:
    return (rows["loadings"].notnull().all("factor") & ~rows["imputed"]).sum("ticker")


def asked(criterion: Criterion) -> bool:
    """Whether a criterion could be asked for; one without a number that passed had nothing to compare."""
    return not (criterion.passed and criterion.value is None)


def sentence(criterion: Criterion) -> str:
    """Say in words what a criterion found."""
    if not asked(criterion):
        return f"{criterion.name}: {criterion.limit}"
    beside = "" if criterion.champion is None else f" (champion: {_shown(criterion.champion)})"
    note = "" if criterion.note is None else f": {criterion.note}"
    return f"{criterion.name} {_shown(criterion.value)}{beside}, {criterion.limit} is asked for{note}"


def _absolute(criteria: GateSpec, metrics: Mapping[str, float | None]) -> tuple[Criterion, Criterion]:
    """Judge the challenger by itself, on its own out-of-sample dates."""
    total = _finite(metrics.get("total_r2_out_of_sample"))
    suffix = "" if criteria.suspected_returns == "counted" else WITHOUT_SUSPECTS
    found = [_finite(value) for name, value in metrics.items() if name.startswith(f"bias_statistic{suffix}.")]
    biases = [value for value in found if value is not None]
    bias = float(np.mean(biases)) if biases else None
    low, high = criteria.min_bias_statistic, criteria.max_bias_statistic
    return (
        Criterion(
            name="out-of-sample total R2",
            passed=total is not None and total >= criteria.min_total_r2,
            value=total,
            limit=f"at least {criteria.min_total_r2:g}",
        ),
        Criterion(
            name="mean bias statistic",
            passed=bias is not None and low <= bias <= high,
            value=bias,
            limit=f"between {low:g} and {high:g} ({_which(criteria)})",
        ),
    )


def _which(criteria: GateSpec) -> str:
    return f"suspected returns {criteria.suspected_returns.replace('_', ' ')}"


def _relative(criteria: GateSpec, scores: xr.Dataset) -> tuple[Criterion, ...]:
    """Judge the challenger beside the champion."""
    r2_name, qlike_name, coverage_name = _RELATIVE
    coverage = _finite(float(scores["coverage"]))
    if coverage is None:
        why = "the champion explains no return of these dates and stocks"
        return tuple(_unasked(name, why) for name in _asked_for(criteria))
    least = 1.0 - criteria.max_coverage_loss
    total = {which: _finite(float(scores["total_r2"].sel(version=which))) for which in (CHALLENGER, CHAMPION)}
    judged = [
        _beside(r2_name, total, criteria.max_total_r2_loss, higher_is_better=True),
        Criterion(
            name=coverage_name,
            passed=coverage >= least,
            value=coverage,
            champion=1.0,
            limit=f"at least {least:g} of the returns that the champion explains",
        ),
    ]
    if not scores.sizes["portfolio"]:
        why = "no portfolio in common that the champion has forecast"
        return (*judged, *(_unasked(name, why) for name in (qlike_name, *_asked_for(criteria)[len(_RELATIVE) :])))
    means = scores["qlike"].mean("portfolio", skipna=False)
    loss = {which: _finite(float(means.sel(version=which))) for which in (CHALLENGER, CHAMPION)}
    qlike = _beside(qlike_name, loss, criteria.max_qlike_loss, higher_is_better=False)
    judged.append(qlike.model_copy(update={"limit": f"{qlike.limit} ({_which(criteria)})"}))
    if criteria.significance is not None:
        judged.append(_tested(criteria.significance, scores["qlike_difference"].values, loss[CHALLENGER]))
    if criteria.confidence is not None:
        judged.append(_in_set(criteria.confidence, scores["qlike_difference"].values, loss[CHALLENGER]))
    return tuple(judged)


def _asked_for(criteria: GateSpec) -> tuple[str, ...]:
    """Name what is asked of a challenger beside the champion."""
    tests = {_TESTED: criteria.significance, _IN_SET: criteria.confidence}
    return (*_RELATIVE, *(name for name, limit in tests.items() if limit is not None))


def _tested(significance: float, apart: Float64Array, own: float | None) -> Criterion:
    """Ask that the challenger's QLIKE (date) less the champion's is not significantly above 0 (Diebold and Mariano)."""
    if own is None:
        return _unasked(_TESTED, _NO_QLIKE)
    test = diebold_mariano(apart, np.zeros_like(apart))
    chance = _finite(test.p_worse)
    if chance is None:
        return _unasked(_TESTED, _TOO_FEW.format(test.n_dates))
    return Criterion(
        name=_TESTED,
        passed=chance >= significance,
        value=chance,
        limit=f"at least {significance:g}, one-sided,",
        note=f"its QLIKE exceeds the champion's by {test.difference:.4f} on average of {test.n_dates} dates",
        statistic=_finite(test.statistic),
    )


def _in_set(confidence: float, apart: Float64Array, own: float | None) -> Criterion:
    """Ask that the challenger is in the model confidence set of the two by QLIKE (Hansen, Lunde and Nason 2011)."""
    if own is None:
        return _unasked(_IN_SET, _NO_QLIKE)
    known = apart[np.isfinite(apart)]
    if len(known) < 2:
        return _unasked(_IN_SET, _TOO_FEW.format(len(known)))
    found = model_confidence_set(np.stack([known, np.zeros_like(known)], axis=1), confidence=confidence)
    return Criterion(
        name=_IN_SET,
        passed=bool(found.included[0]),
        value=float(found.p_values[0]),
        champion=float(found.p_values[1]),
        limit=f"at least {1.0 - confidence:.3g}",
    )


def _beside(name: str, values: dict[str, float | None], tolerance: float, *, higher_is_better: bool) -> Criterion:
    """Ask that the challenger is not worse than the champion by more than the tolerance."""
    own, other = values[CHALLENGER], values[CHAMPION]
    lost = math.inf if own is None or other is None else (other - own if higher_is_better else own - other)
    return Criterion(
        name=name,
        passed=lost <= tolerance,
        value=own,
        champion=other,
        limit=f"{'at least the champion less' if higher_is_better else 'at most the champion plus'} {tolerance:g}",
    )


def _unasked(name: str, why: str) -> Criterion:
    return Criterion(name=name, passed=True, value=None, limit=f"not applicable, {why}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
