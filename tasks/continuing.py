"""The rows of an update: what stands at each new date, and whether it can be believed.

Here belongs the maths of the new rows, put together from `models`; publishing them belongs in `updating`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from models import RiskModel
from models.evaluation import forecasts
from models.evaluation.gate import sentence
from schemas.contracts import VERSION, Criterion, GateDecision, Manifest
from tasks.assembling import impute
from tasks.histories import History, Reader, expected_of, loadings_of
from tasks.panels import apart
from tasks.registry import covariance_of, specific_of

_LEAST_COVERAGE = 0.5
"""Share of the stocks that the parent covers below which a new row is not believed."""
_FORECASTS = ["loadings", "factor_returns", "expected_returns", "weights", "portfolio_variance"]


def continued(old: xr.Dataset, reader: Reader, history: History) -> xr.Dataset:
    """Join the rows of a version and the rows of the dates after it, up to the end of a history.

    Parameters
    ----------
    old : xarray.Dataset
        The version that is continued, in memory.
    reader : Reader
        Its fit, and the data.
    history : History
        What the fit makes of all dates.
    """
    dates = history.factor_returns.indexes["date"]
    first, last = int(dates.searchsorted(old.indexes["date"][-1], side="right")), len(dates) - 1
    axis = _axis(old.indexes["ticker"], reader, last)
    panel, held = reader.rows(first, last), reader.holdings(first, last)
    risk = _risk(reader, history, dates[first:])
    before, rows = old.isel(date=[-1])[_FORECASTS], []
    for position in range(first, last + 1):
        at = slice(position - first, position - first + 1)
        known = reader.known(panel["ticker"].values, position)
        two = apart(panel.isel(date=slice(at.start, at.start + 2), ticker=known))
        row = _row(reader, two, apart(held.isel(date=at, ticker=known)), apart(risk.isel(date=at)))
        rows.append(row.merge(_evaluated(before, row, history)))
        before = row[_FORECASTS]
    new = xr.concat([_widened(row, axis) for row in rows], "date", data_vars="all", join="exact", coords="minimal")
    return _joined(_widened(old, axis), new)


def sanity(manifest: Manifest, old: xr.Dataset, dataset: xr.Dataset) -> GateDecision:
    """Judge the new rows: an update inherits the decision about its parent as long as they can be believed."""
    new = dataset.isel(date=slice(old.sizes["date"], None))
    defined = new["weights"].notnull().all("ticker")
    forecast = defined & new["portfolio_variance"].notnull()
    share = float(forecast.sum() / defined.sum()) if bool(defined.any()) else 1.0
    least = _LEAST_COVERAGE * int(_covered(old).isel(date=-1))
    covered = int(_covered(new).min())
    criteria = (
        Criterion(name="portfolios with a forecast", passed=share == 1.0, value=share, limit="all that are defined"),
        Criterion(
            name="covered stocks",
            passed=covered >= least,
            value=covered,
            champion=float(_covered(old).isel(date=-1)),
            limit=f"at least {_LEAST_COVERAGE:.0%} of the version that is continued",
        ),
    )
    passed = all(one.passed for one in criteria)
    reasons = tuple(sentence(one) for one in criteria if passed or not one.passed)
    inherited = f"continues {manifest.version}: {'; '.join(manifest.gate.reasons)}"
    days = [day.date() for day in new.indexes["date"][[0, -1]]]
    return GateDecision(
        passed=passed,
        reasons=(*reasons, inherited),
        criteria=criteria,
        champion=manifest.version,
        first_date=days[0],
        last_date=days[1],
        dates=new.sizes["date"],
    )


def _covered(rows: xr.Dataset) -> xr.DataArray:
    return (rows["loadings"].notnull().all("factor") & ~rows["imputed"]).sum("ticker")


def _axis(old: pd.Index, reader: Reader, last: int) -> pd.Index:
    """Tickers of the version, then the new ones in the order in which they appeared: as updates one by one add them."""
    seen = reader.inputs.seen(last)
    order = seen[np.argsort(reader.inputs.first_seen[seen], kind="stable")]
    names = pd.Index(reader.inputs.tickers[order])
    return old.append(names[~names.isin(old)])


def _risk(reader: Reader, history: History, dates: pd.DatetimeIndex) -> xr.Dataset:
    """Omega and the specific variance of every stock, as of the new dates."""
    everyone = xr.ones_like(history.residuals.reindex(date=dates), dtype=np.bool_)
    variance = specific_of(reader.spec.specific).path(history.residuals, dates, everyone)
    return xr.Dataset(
        {
            "factor_returns": history.factor_returns.sel(date=dates),
            "omega": covariance_of(reader.spec.covariance).path(history.factor_returns, dates),
            "specific_variance": variance,
        }
    )


def _row(reader: Reader, two: xr.Dataset, held: xr.Dataset, risk: xr.Dataset) -> xr.Dataset:
    """One as-of date: loadings from the panel row after it, and the risk that follows from them."""
    tickers = held.indexes["ticker"]
    coords = {"date": held.indexes["date"], "ticker": tickers, "factor": reader.model.factors_}
    exposure = xr.DataArray(
        loadings_of(reader.model, two.isel(date=[1]))[np.newaxis], dims=("date", "ticker", "factor"), coords=coords
    )
    filled, imputed = impute(exposure, held)
    specific = risk["specific_variance"].sel(ticker=tickers).where(filled.notnull().all("factor"))
    row = xr.Dataset(
        {
            "loadings": filled,
            "imputed": imputed,
            "factor_returns": risk["factor_returns"],
            "omega": risk["omega"],
            "specific_variance": specific,
            "expected_returns": (("date", "ticker"), expected_of(reader.model, two)[np.newaxis]),
            "weights": held["weights"],
            "out_of_sample": ("date", [True]),
        }
    )
    model = RiskModel(row["loadings"], row["omega"], row["specific_variance"])
    return row.merge(model.decompose(row["weights"]))


def _evaluated(before: xr.Dataset, row: xr.Dataset, history: History) -> xr.Dataset:
    """Score what was forecast on the date before with what happened on the date of a row."""
    tickers = row.indexes["ticker"]
    pair = xr.concat([_widened(before, tickers), row[_FORECASTS]], "date", join="exact", coords="minimal")
    place = {"date": pair.indexes["date"], "ticker": tickers}
    series = forecasts.evaluate(apart(pair), history.returns.sel(place), history.mask.sel(place)).isel(date=[1])
    return series[[name for name in series if name in VERSION]]


def _widened(rows: xr.Dataset, tickers: pd.Index) -> xr.Dataset:
    """Bring rows to other tickers: those that it lacks have no numbers, and a weight of zero where one is defined."""
    if rows.indexes["ticker"].equals(tickers):
        return rows
    wide = rows.reindex(ticker=tickers, fill_value={"imputed": False})
    if "weights" in rows:
        defined = rows["weights"].notnull().any("ticker")
        wide["weights"] = wide["weights"].where(wide["weights"].notnull() | ~defined, np.float32(0.0))
    return wide


def _joined(old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    dated = [name for name, array in old.data_vars.items() if "date" in array.dims]
    both = xr.concat([old[dated], new[dated]], "date", join="exact", coords="minimal")
    ordered = {name: both[name].transpose(*VERSION[str(name)].dims) for name in dated}
    return old.drop_dims("date").assign(ordered).drop_attrs()
