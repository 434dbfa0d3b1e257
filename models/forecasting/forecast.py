"""The whole of it in a notebook: what a retrain publishes, from a model and a panel.

Here belongs the order of the steps for whoever has everything in memory. In a run the same functions are called by
tasks, which keep what each of them gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from models.families.base import FactorModel
from models.forecasting.explained import with_explanation
from models.forecasting.following import RiskEstimators, in_sample, serve
from models.forecasting.held import holdings
from models.forecasting.joining import Realised, check_axis, in_coordinates, join, rotations
from models.forecasting.rows import completed, out_of_sample, scored
from models.forecasting.schedule import refit_dates, training
from models.panel import Panel
from schemas.risk import RiskSpec
from schemas.spec import WalkForward
from schemas.statistics import STATISTIC_DIMS


def forecast(
    model: FactorModel,
    panel: Panel,
    cube: xr.Dataset,
    schedule: WalkForward,
    *,
    bases: Sequence[FactorModel] = (),
    risk: RiskSpec | None = None,
    benchmarks: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Fit a model walking forward, and make the rows of a version: the Dataset that a retrain publishes, bit for bit.

    Parameters
    ----------
    model : FactorModel
        Unfitted; it stays so.
    panel : Panel
        Dates with returns, and one row more for the session after the last, without: what is known at the last close
        (`Panel.from_cube`).
    cube : xarray.Dataset
        ``estimation`` (date, ticker) and ``weights`` (portfolio, date, ticker) of all dates but that last row, and
        ``refuted`` (date, ticker) if there is one.
    schedule : WalkForward
        When the model is fitted again.
    bases : sequence of FactorModel
        The unfitted models that this one is fitted on, in the order of its `bases`; each stands by itself.
    risk : RiskSpec, optional
        How risk is estimated. Default: as the platform does.
    benchmarks : mapping of str to str, optional
        Portfolio to its benchmark, another portfolio of the cube.

    Returns
    -------
    xarray.Dataset
        As in `schemas.contracts.VERSION`, with the statistics of the last fit and what moves its loadings.

    Raises
    ------
    ModelError
        If the data do not carry a fit or the risk.

    Examples
    --------
    >>> from models import IPCA, Panel, WalkForward, forecast
    >>> from models.panel import example_cube
    >>> cube = example_cube()
    >>> panel = Panel.from_cube(cube, next_date="2024-06-17")
    >>> version = forecast(IPCA(n_factors=1), panel, cube, WalkForward(first="2024-05-31", every="month"))
    >>> dict(version["portfolio_variance"].sizes)
    {'portfolio': 1, 'date': 120}
    """
    risk = risk or RiskSpec()
    estimators = RiskEstimators.of(risk)
    dates, held = panel.dates[:-1], holdings(cube).load()
    refits = refit_dates(dates, schedule, panel.dates[-1])
    begins = [int(dates.searchsorted(day)) for day in refits]
    ends = [*begins[1:], len(dates)]
    with threadpool_limits(1):  # as on a worker: BLAS rounds by the number of its threads
        fits = _fitted(model, panel, begins, schedule.window, bases)
        histories = [
            Realised.of(fit, panel.known(end), estimators.since(begin))
            for fit, begin, end in zip(fits, begins, ends, strict=True)
        ]
        last = fits[-1]
        counts = [(f"{day:%Y-%m-%d}", len(fit.factors_)) for day, fit in zip(refits, fits, strict=True)]
        check_axis(type(model).__name__, counts, last.factors_)
        turns = rotations(histories, last.latent_blocks)
        turned = [in_coordinates(fit, turn) for fit, turn in zip(fits, turns, strict=True)]
        served = [
            serve(fit, panel.known(end), begin, end, estimators)
            for fit, begin, end in zip(turned, begins, ends, strict=True)
        ]
        before = in_sample(turned[0], panel.known(ends[0]), 0, begins[0])
        joined = join([before, *served], dates, held.indexes["ticker"], last.factors_)
        known = Panel(panel.data.isel(date=slice(0, -1)))
        rows, _ = completed(joined, held, known.returns.where(known.usable), risk.calibration, benchmarks=benchmarks)
        rows = out_of_sample(rows, refits[0].to_datetime64())
        rows = with_statistics(scored(rows, known.returns, known.mask, held), turned[-1].statistics())
        return with_explanation(rows, turned[-1], panel.known(begins[-1]))


def _fitted(
    model: FactorModel, panel: Panel, begins: Sequence[int], window: int | None, bases: Sequence[FactorModel]
) -> list[FactorModel]:
    """Fit as of each position, with what later fits keep of the first."""
    below = [_fitted(base, panel, begins, window, ()) for base in bases]
    fits: list[FactorModel] = []
    for place, begin in enumerate(begins):
        estimator = model.clone().refit(fits[0]) if fits else model.clone()
        estimator = estimator.on(*(fitted[place] for fitted in below))
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
        if "factor" in values.dims:  # the factor of estimation error earns nothing
            missing = 0.0 if name == "premia" else np.nan
            values = values.reindex(factor=rows["factor"].values, fill_value=missing)
        if "penalty" in values.dims:
            values = values.assign_coords(penalty=np.arange(values.sizes["penalty"]))
        kept = {key: array.attrs[key] for key in ("long_name", "comment") if key in array.attrs}
        added[name] = values.drop_attrs().assign_attrs(kept)
    return rows.assign(added)
