"""The whole of it in a notebook: what a retrain publishes, from a model and a panel.

Here belongs the order of the steps for whoever has everything in memory. In a run the same functions are called by
tasks, which keep what each of them gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from models.families.base import FactorModel
from models.forecasting.following import RiskEstimators, Served, serve
from models.forecasting.joining import Realised, check_axis, in_coordinates, join, rotations
from models.forecasting.rows import completed, out_of_sample, scored
from models.forecasting.schedule import refit_dates, training
from models.panel import Panel
from models.risk.covariance import FactorCovariance
from models.risk.specific import SpecificRisk
from schemas.spec import WalkForward
from schemas.statistics import STATISTIC_DIMS


def forecast(
    model: FactorModel,
    panel: Panel,
    held: xr.Dataset,
    schedule: WalkForward,
    *,
    covariance: FactorCovariance | None = None,
    specific: SpecificRisk | None = None,
) -> xr.Dataset:
    """Fit a model walking forward, and make the rows of a version: the Dataset that a retrain publishes, bit for bit.

    Parameters
    ----------
    model : FactorModel
        Unfitted; it stays so.
    panel : Panel
        Dates with returns, and one row more for the session after the last, without: what is known at the last close.
    held : xarray.Dataset
        ``estimation`` (date, ticker) and ``weights`` (portfolio, date, ticker) of all dates but that last row.
    schedule : WalkForward
        When the model is fitted again.
    covariance, specific : optional
        How risk is estimated. Default: as the platform does.

    Returns
    -------
    xarray.Dataset
        As in `schemas.contracts.VERSION`, with the statistics of the last fit.

    Raises
    ------
    ModelError
        If the model is one on the residuals of another, or the data do not carry a fit or the risk.
    """
    estimators = RiskEstimators(covariance or FactorCovariance(), specific or SpecificRisk())
    dates = panel.dates[:-1]
    refits = refit_dates(dates, schedule, panel.dates[-1])
    begins = [int(dates.searchsorted(day)) for day in refits]
    ends = [*begins[1:], len(dates)]
    fits = _fitted(model, panel, begins, schedule.window)
    histories = [Realised.of(fit, panel.known(end)) for fit, end in zip(fits, ends, strict=True)]
    last = fits[-1]
    check_axis(
        type(model).__name__, [(f"{day:%Y-%m-%d}", len(fit.factors_)) for day, fit in zip(refits, fits, strict=True)],
        last.factors_,
    )  # fmt: skip
    served: list[Served] = []
    turned = last
    for fit, turn, begin, end in zip(fits, rotations(histories, latent=last.latent), begins, ends, strict=True):
        turned = in_coordinates(fit, turn)
        served.append(serve(turned, panel.known(end), begin, end, estimators, first=None if served else 0))
    joined = join(served, dates, held.indexes["ticker"], last.factors_)
    rows = out_of_sample(completed(joined, held), refits[0].to_datetime64())
    known = panel.data.isel(date=slice(0, -1))
    return with_statistics(scored(rows, known["returns"], known["mask"]), turned.statistics())


def _fitted(model: FactorModel, panel: Panel, begins: Sequence[int], window: int | None) -> list[FactorModel]:
    fits: list[FactorModel] = []
    for begin in begins:
        estimator = model.clone() if not fits else model.clone().refit(fits[0])
        fits.append(estimator.fit(training(panel.known(begin), window)))
    return fits


def with_statistics(rows: xr.Dataset, found: dict[str, xr.DataArray]) -> xr.Dataset:
    """Add the inference of the last fit, on the version's own axes.

    A path of penalties of every stock is left out: it would outweigh all else, and the state keeps it.
    """
    added = {}
    for name, array in found.items():
        if {"ticker", "penalty"} <= set(array.dims):
            continue
        values = array.astype(np.float64).drop_vars([name for name in array.coords if name not in array.dims])
        values = values.transpose(*(dim for dim in STATISTIC_DIMS if dim in values.dims))
        if "ticker" in values.dims:
            values = values.reindex(ticker=rows["ticker"].values)
        if "penalty" in values.dims:
            values = values.assign_coords(penalty=np.arange(values.sizes["penalty"]))
        added[name] = values.drop_attrs().assign_attrs(long_name=array.attrs["long_name"])
    return rows.assign(added)
