"""The steps between fits and versions: join the fits of each model, add Omega and portfolio risk, evaluate.

Latent factors are identified up to a rotation, so each fit is turned towards the one before it; every risk number is
the same in any coordinates. The functions that run on workers are idempotent, as in `tasks.fitting`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import RiskModel
from models.evaluation import forecasts
from models.families.rotation import align
from schemas.errors import ModelError
from schemas.modelspecs import ModelSpec
from schemas.refs import FitRef, PanelRef, RiskRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from schemas.statistics import STATISTIC_DIMS
from tasks.artifacts import publish_metrics_table
from tasks.cluster import Cluster
from tasks.fitting import restore
from tasks.logs import run_logger
from tasks.panels import known_holdings, known_panel
from tasks.provenance import key
from tasks.registry import covariance_of
from tasks.stages import Stage
from tasks.workspace import Workspace

Arrays = dict[str, npt.NDArray[Any]]


def assemble_all(
    spec: RunSpec, models: list[ModelSpec], panel: PanelRef, fits: list[FitRef], cluster: Cluster, settings: Settings
) -> list[RiskRef]:
    """Assemble the risk model of every model over all dates, side by side on Dask."""
    futures = []
    for model in models:
        own = tuple(fit for fit in fits if fit.model == model.name)
        name = f"risk-{model.name}-{panel.key[:8]}"
        futures.append(cluster.submit(assemble, settings.root, panel, spec, model, own, key=name))
    return cluster.gather(futures, lambda ref: f"covariance and risk of {ref.model}")


estimate_covariance = task(
    name="estimate covariance",
    task_run_name="covariance of {panel.universe} as of {panel.as_of}",
    cache_policy=NO_CACHE,
)(assemble_all)


def evaluate_all(
    spec: RunSpec, panel: PanelRef, risks: list[RiskRef], cluster: Cluster, settings: Settings
) -> dict[str, dict[str, float | None]]:
    """Score the forecasts of every model out of sample; metrics by model."""
    futures = [
        cluster.submit(evaluate, settings.root, panel, spec, risk, key=f"evaluate-{risk.model}-{risk.key[:8]}")
        for risk in risks
    ]
    metrics = cluster.gather(futures, lambda found: f"evaluated: {_scored(found['total_r2_out_of_sample'])}")
    rows = [{"model": risk.model, **found} for risk, found in zip(risks, metrics, strict=True)]
    publish_metrics_table(spec.universe, rows)
    run_logger().info("evaluated %d model(s)", len(rows))
    return {risk.model: found for risk, found in zip(risks, metrics, strict=True)}


evaluate_models = task(
    name="evaluate", task_run_name="evaluate {panel.universe} as of {panel.as_of}", cache_policy=NO_CACHE
)(evaluate_all)


def _scored(total_r2: float | None) -> str:
    return "no date out of sample yet" if total_r2 is None else f"out-of-sample total R2 {total_r2:.4f}"


def assemble(root: Path, panel: PanelRef, spec: RunSpec, model: ModelSpec, fits: tuple[FitRef, ...]) -> RiskRef:
    """Join the fits of one model and add Omega, specific and portfolio variance. Runs on a worker."""
    space = Workspace(root)
    portfolios = [item.name for item in spec.portfolios]
    risk_key = key(
        Stage.ROWS.code(),
        fits=[fit.key for fit in fits],
        covariance=spec.covariance.model_dump(),
        portfolios=portfolios,
    )
    if not space.work.has("risks", risk_key):
        loaded = [space.work.get_arrays("projections", fit.key) for fit in fits]
        final = restore(space, model, loaded[-1][1]["fit"])
        _check_axis(model.name, fits, [arrays for arrays, _ in loaded], final.factors_)
        rotations = _chain([arrays for arrays, _ in loaded], latent=final.latent)
        held = known_holdings(space, panel)
        projected = [_on_axis(arrays, meta["tickers"], held.indexes["ticker"]) for arrays, meta in loaded]
        risk = _join(spec, pd.Timestamp(fits[0].as_of), projected, rotations, final.factors_, held)
        meta = space.work.get_arrays("fits", loaded[-1][1]["fit"])[1]
        if final.latent:
            final = final.rotate(rotations[-1])
        state = final.state()
        space.work.put_arrays("states", risk_key, state.arrays, {"state": state.meta, **_facts(model, meta)})
        space.work.put_dataset("risks", risk_key, with_statistics(risk, final.statistics()))
    return RiskRef(model=model.name, key=risk_key, fits=fits)


def evaluate(root: Path, panel: PanelRef, spec: RunSpec, risk: RiskRef) -> dict[str, float | None]:
    """Add the evaluation of one model's forecasts, and return its metrics. Runs on a worker."""
    space, name = Workspace(root), evaluation_key(risk)
    if not space.work.has("metrics", name):  # kept last
        data = known_panel(space, panel).data.isel(date=slice(0, -1))
        version = space.work.open_dataset("risks", risk.key).load()
        series = forecasts.evaluate(version, data["returns"].load(), data["mask"].load())
        space.work.put_dataset("evaluations", name, series.drop_vars(["fit"], errors="ignore"))
        meta = space.work.get_arrays("states", risk.key)[1]
        metrics = metrics_of(series, version, meta["in_sample"], spec.periods_per_year)
        space.work.put_json("metrics", name, metrics)
    found: dict[str, float | None] = space.work.get_json("metrics", name)
    return found


def evaluation_key(risk: RiskRef) -> str:
    """Name the evaluation of a risk model."""
    return key(Stage.EVALUATION.code(), risk=risk.key)


def _on_axis(fit: Arrays, known: list[str], tickers: pd.Index) -> Arrays:
    """Bring a projection to the tickers of a later date; those that had not appeared yet have nothing in it."""
    at = tickers.get_indexer(pd.Index(known))
    wide = dict(fit)
    for name in ("loadings", "expected_returns", "specific_variance"):
        values = fit[name]
        wide[name] = np.full((len(values), len(tickers), *values.shape[2:]), np.nan, dtype=values.dtype)
        wide[name][:, at] = values
    return wide


def _check_axis(model: str, fits: tuple[FitRef, ...], projected: list[Arrays], factors: list[str]) -> None:
    """Refuse fits with other numbers of factors than the last: the factor axis of a version is one."""
    for fit, arrays in zip(fits, projected, strict=True):
        found = arrays["factor_returns"].shape[1]
        if found != len(factors):
            raise ModelError(
                f"{model}: the fit as of {fit.as_of} has {found} factors and the last one {len(factors)} "
                f"({', '.join(factors)}); an industry or characteristic that comes later is a new factor: start "
                "walk_forward.first after it, or leave it out."
            )


def _chain(fits: list[Arrays], *, latent: bool) -> list[npt.NDArray[np.float64]]:
    """Rotation of every fit onto the one before, over the dates that both have seen."""
    n_factors = fits[0]["factor_returns"].shape[1]
    rotations = [np.eye(n_factors)]
    for earlier, later in pairwise(fits):
        if not latent:
            rotations.append(np.eye(n_factors))
            continue
        _, first, second = np.intersect1d(earlier["history"], later["history"], return_indices=True)
        reference = earlier["factor_returns"][first] @ rotations[-1]
        rotations.append(align(later["factor_returns"][second], reference).astype(np.float64))
    return rotations


def _join(
    spec: RunSpec,
    first: pd.Timestamp,
    fits: list[Arrays],
    rotations: list[npt.NDArray[np.float64]],
    factors: list[str],
    held: xr.Dataset,
) -> xr.Dataset:
    dates = held.indexes["date"]
    tickers = held["ticker"].values
    coords = {"date": dates, "ticker": tickers, "factor": factors}
    covariance = covariance_of(spec.covariance)
    loadings = np.concatenate(
        [
            (fit["loadings"].astype(np.float64) @ turn).astype(np.float32)
            for fit, turn in zip(fits, rotations, strict=True)
        ]
    )
    # Panel row t holds X[t-1]; the published label is the date at which X was known.
    exposure = xr.DataArray(loadings[1:], dims=("date", "ticker", "factor"), coords=coords)
    expected = np.concatenate([fit["expected_returns"] for fit in fits])[1:]
    factor_returns = np.full((len(dates), len(factors)), np.nan)
    omega = np.full((len(dates), len(factors), len(factors)), np.nan)
    specific = np.full((len(dates), len(tickers)), np.nan, dtype=np.float32)
    for fit, turn in zip(fits, rotations, strict=True):
        history = xr.DataArray(
            fit["factor_returns"] @ turn,
            dims=("date", "factor"),
            coords={"date": _stamps(fit["history"]), "factor": factors},
        )
        served = _stamps(fit["as_of_date"])
        rows = dates.get_indexer(served)
        omega[rows] = covariance.path(history, served).values
        specific[rows] = fit["specific_variance"]
        realised = _stamps(fit["panel_date"])
        inside = realised.isin(dates)
        factor_returns[dates.get_indexer(realised[inside])] = history.sel(date=realised[inside]).values
    filled, imputed = impute(exposure, held)
    risk = xr.Dataset(
        {
            "loadings": filled,
            "imputed": imputed,
            "factor_returns": (("date", "factor"), factor_returns),
            "omega": (("date", "factor", "factor_"), omega),
            "specific_variance": xr.DataArray(specific, dims=("date", "ticker")).where(filled.notnull().all("factor")),
            "expected_returns": (("date", "ticker"), expected),
            "weights": held["weights"],
            "out_of_sample": ("date", dates > first),
        },
        coords={**coords, "factor_": factors},
    )
    model = RiskModel(risk["loadings"], risk["omega"], risk["specific_variance"])
    return risk.merge(model.decompose(risk["weights"]))


def impute(loadings: xr.DataArray, held: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Give traded stocks without loadings of their own the cross-section's mean, and say which ones.

    A portfolio that holds a new listing has a risk, and the mean stock is the best guess of it.
    """
    traded = held["estimation"] | (abs(held["weights"]) > 0).any("portfolio")
    covered = loadings.notnull().all("factor")
    mean = loadings.where(covered).mean("ticker", dtype=np.float64).astype(np.float32)
    imputed = traded.transpose("date", "ticker") & ~covered & mean.notnull().all("factor")
    return loadings.where(~imputed, mean), imputed


def _facts(model: ModelSpec, meta: dict[str, Any]) -> dict[str, Any]:
    return {"kind": model.kind, "params": model.model_dump(mode="json"), "in_sample": meta["in_sample"]}


def with_statistics(risk: xr.Dataset, found: dict[str, xr.DataArray]) -> xr.Dataset:
    """Add the inference of the last fit, on the version's own axes.

    A path of penalties of every stock is left out: it would outweigh all else, and the state keeps it.
    """
    for name, array in found.items():
        if {"ticker", "penalty"} <= set(array.dims):
            continue
        values = array.astype(np.float64).drop_vars([name for name in array.coords if name not in array.dims])
        values = values.transpose(*(dim for dim in STATISTIC_DIMS if dim in values.dims))
        if "ticker" in values.dims:
            values = values.reindex(ticker=risk["ticker"].values)
        if "penalty" in values.dims:
            values = values.assign_coords(penalty=np.arange(values.sizes["penalty"]))
        risk[name] = values.drop_attrs()
    return risk


def metrics_of(
    series: xr.Dataset, version: xr.Dataset, in_sample: dict[str, float], periods_per_year: int
) -> dict[str, float | None]:
    """Return the totals of an evaluation over the dates out of sample; None where there is no number."""
    outside = version["out_of_sample"]
    totals = forecasts.summary(series, outside)
    forecast = version["portfolio_variance"].shift(date=1).where(outside & series["portfolio_return"].notnull())
    realised = series["portfolio_return"].where(outside & forecast.notnull())
    annual: dict[str, xr.DataArray] = {
        "forecast_volatility": (forecast.mean("date") * periods_per_year) ** 0.5,
        "realised_volatility": ((realised**2).mean("date") * periods_per_year) ** 0.5,
    }
    metrics = {
        "total_r2_in_sample": in_sample["total_r2"],
        "total_r2_out_of_sample": float(totals["total_r2"]),
        "predictive_r2_out_of_sample": float(totals["predictive_r2"]),
    }
    by_portfolio: dict[str, xr.DataArray] = {name: totals[name] for name in ("bias_statistic", "qlike")} | annual
    for name, values in by_portfolio.items():
        metrics |= {f"{name}.{p}": float(values.sel(portfolio=p)) for p in values["portfolio"].values}
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def _stamps(days: npt.NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(days.astype("datetime64[D]").astype("datetime64[ns]"))
