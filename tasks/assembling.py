"""The steps between fits and versions: the rows that each fit serves, joined and made whole, and their scores.

The functions that run on workers are idempotent, as in `tasks.fitting`. What they compute is in `models.forecasting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pandas as pd
import xarray as xr

from models.arrays import NamedArrays
from models.families import registry
from models.families.base import FactorModel, ModelState
from models.forecasting.calibrating import named, parted
from models.forecasting.explained import with_explanation
from models.forecasting.following import RiskEstimators, Served, in_sample, serve
from models.forecasting.forecast import with_statistics
from models.forecasting.joining import Realised, check_axis, in_coordinates, join_blocks, rotations
from models.forecasting.metrics import Metrics, metrics_of
from models.forecasting.rows import FORECASTS, completed, out_of_sample, scored
from models.panel import Panel
from models.panel.digests import DataDigests
from schemas.families import ModelSpec, model_spec
from schemas.refs import FitRef, Key, PanelRef, RiskRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.arrays import date_blocks, dates_at_once
from storage.work import Kind
from tasks.artifacts import publish_metrics_table
from tasks.checkpoints import KeptStates, estimated, fit_identity
from tasks.cluster import Cluster
from tasks.fitting import restore, scores_in_sample
from tasks.logs import run_logger
from tasks.naming import code_of
from tasks.panels import Sample
from tasks.provenance import key
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace

_COLUMNS = 16
"""Numbers of a stock on a date, about, where it has so many loadings, or beside them."""


@step("estimate covariance", "covariance of {panel.universe} as of {panel.as_of}")
def estimate_covariance(
    spec: RunSpec, models: list[ModelSpec], panel: PanelRef, fits: list[FitRef], cluster: Cluster, settings: Settings
) -> tuple[list[RiskRef], dict[str, Exception]]:
    """Make the risk model of every model over all dates: the rows of each fit side by side on Dask, then joined.

    Beside them stands why other models failed.
    """
    sample, futures = Sample(Workspace.of_workers(settings), panel, spec), {}
    size = dates_at_once(_COLUMNS * len(sample.inputs.tickers) * np.float32().itemsize)
    for model in models:
        own = tuple(fit for fit in fits if fit.model == model.name)
        about = f"{model.name}-{panel.key[:8]}"
        turns = cluster.submit(turn_fits, sample, model, own, key=f"turns-{about}")
        rows = [
            cluster.submit(show_in_sample, sample, model, own[:1], turns, begin, size, key=f"in-sample-{begin}-{about}")
            for begin in range(0, sample.inputs.position(own[0].as_of), size)
        ]
        rows += [
            cluster.submit(serve_fit, sample, model, own[: place + 1], turns, key=f"rows-{own[place].as_of}-{about}")
            for place in range(len(own))
        ]
        futures[model.name] = [cluster.submit(assemble_risk, sample, model, own, turns, rows, key=f"risk-{about}")]
    found, failures = cluster.gather_each(futures, lambda ref: f"covariance and risk of {ref.model}")
    return [risk for (risk,) in found.values()], failures


@step("evaluate", "evaluate {panel.universe} as of {panel.as_of}")
def evaluate_models(
    spec: RunSpec, panel: PanelRef, risks: list[RiskRef], cluster: Cluster, settings: Settings
) -> tuple[dict[str, Metrics], dict[str, Exception]]:
    """Score the forecasts of every model out of sample; metrics by model, and why others failed."""
    sample = Sample(Workspace.of_workers(settings), panel, spec)
    futures = {
        risk.model: [cluster.submit(evaluate_risk, sample, risk, key=f"evaluate-{risk.model}-{risk.key[:8]}")]
        for risk in risks
    }
    found, failures = cluster.gather_each(
        futures, lambda found: f"evaluated: {_scored(found['total_r2_out_of_sample'])}"
    )
    metrics = {model: scores for model, (scores,) in found.items()}
    publish_metrics_table(spec.universe, [{"model": model, **scores} for model, scores in metrics.items()])
    run_logger().info("evaluated %d model(s)", len(metrics))
    return metrics, failures


def _scored(total_r2: float | None) -> str:
    return "no date out of sample yet" if total_r2 is None else f"out-of-sample total R2 {total_r2:.4f}"


def turn_fits(sample: Sample, model: ModelSpec, fits: tuple[FitRef, ...]) -> Key:
    """Find how each fit of a model is turned towards the one before; return the key. Runs on a worker."""
    space = sample.space
    name = key(Stage.ROWS.code(), turned=[fit.realised for fit in fits])
    if not space.work.has(Kind.TURNS, name):
        last = restore(space, model, fits[-1].key)
        histories = [Realised(**space.work.get_arrays(Kind.REALISED, fit.realised)[0]) for fit in fits]
        counts = [(f"{fit.as_of}", each.factor_returns.shape[1]) for fit, each in zip(fits, histories, strict=True)]
        check_axis(model.name, counts, last.factors_)
        found = np.stack(rotations(histories, last.latent_blocks))
        space.work.put_arrays(Kind.TURNS, name, {"rotations": found}, {})
    return name


def show_in_sample(
    sample: Sample, model: ModelSpec, first: tuple[FitRef, ...], turns: Key, begin: int, size: int
) -> Key:
    """Make a block of the rows before the first fit; return their key. Runs on a worker."""
    space, inputs, (fit,) = sample.space, sample.inputs, first
    end = min(begin + size, inputs.position(fit.as_of))
    name = key(Stage.ROWS.code(), fits=[fit.realised], begin=begin, end=end)
    if not space.work.has(Kind.ROWS, name):
        _keep(space, name, in_sample(_turned(space, model, first, turns), sample.until(fit.until), begin, end))
    return name


def serve_fit(sample: Sample, model: ModelSpec, fits: tuple[FitRef, ...], turns: Key) -> Key:
    """Make the rows of the last of these fits, turned towards those before it; return their key. Runs on a worker."""
    space, spec, inputs, fit = sample.space, sample.spec, sample.inputs, fits[-1]
    name = key(Stage.ROWS.code(), fits=[each.realised for each in fits], risk=estimated(spec))
    if not space.work.has(Kind.ROWS, name):
        turned, last = _turned(space, model, fits, turns), fit.until > sample.panel.as_of
        served = serve(
            turned,
            sample.until(fit.until),
            inputs.position(fit.as_of),
            inputs.position(sample.panel.as_of) + 1 if last else inputs.position(fit.until),
            RiskEstimators.of(spec.risk),
            checkpoints=kept_states(space, spec, model, turned.state(), inputs) if last else None,
        )
        _keep(space, name, served)
    return name


def _keep(space: Workspace, name: Key, served: Served) -> None:
    arrays = {field.name: getattr(served, field.name) for field in fields(served)}
    tickers, begin = arrays.pop("tickers"), arrays.pop("begin")
    space.work.put_arrays(Kind.ROWS, name, arrays, {"tickers": tickers, "begin": begin})


def kept_states(
    space: Workspace, spec: RunSpec, model: ModelSpec, state: ModelState, inputs: DataDigests
) -> KeptStates:
    """Find and keep the states of risk that follow from a fitted model."""
    fit = fit_identity(code_of(Stage.STATES, spec, model), model.kind, model.params(), state)
    return KeptStates(space, fit, inputs, spec)


def _turned(space: Workspace, model: ModelSpec, fits: tuple[FitRef, ...], turns: Key) -> FactorModel:
    """Return the last of these fits, the first of the model, in the coordinates of the first."""
    rotation = space.work.get_arrays(Kind.TURNS, turns)[0]["rotations"][len(fits) - 1]
    return in_coordinates(restore(space, model, fits[-1].key), rotation)


def assemble_risk(sample: Sample, model: ModelSpec, fits: tuple[FitRef, ...], turns: Key, rows: list[Key]) -> RiskRef:
    """Join the rows of one model's fits, and add portfolio risk and the last fit's inference. Runs on a worker."""
    space = sample.space
    portfolios, benchmarks = [item.name for item in sample.spec.portfolios], sample.spec.benchmarks
    calibration = sample.spec.risk.calibration
    stages = calibration and calibration.model_dump(mode="json")
    name = key(Stage.ROWS.code(), rows=rows, portfolios=portfolios, calibration=stages, benchmarks=benchmarks)
    if not space.work.has(Kind.RISKS, name):
        last = _turned(space, model, fits, turns)
        space.work.put_dataset(Kind.RISKS, name, _assembled(sample, model, fits, last, rows, name))
    return RiskRef(model=model.name, key=name, fits=fits)


def _assembled(
    sample: Sample, model: ModelSpec, fits: tuple[FitRef, ...], last: FactorModel, rows: list[Key], name: Key
) -> Iterator[xr.Dataset]:
    """Make the risk model of all dates block by block; after the last one the state of the fit is kept."""
    space, spec, held, known = sample.space, sample.spec, sample.held(), sample.known()
    dates, tickers = held.indexes["date"], held.indexes["ticker"]
    first = pd.Timestamp(fits[0].as_of).to_datetime64()
    reached: NamedArrays | None = None
    size = dates_at_once((len(last.factors_) + _COLUMNS) * len(tickers) * np.float32().itemsize)
    for joined in join_blocks((_served(space, each) for each in rows), dates, tickers, last.factors_, size):
        days = slice(*joined.indexes["date"][[0, -1]])
        block = Panel(known.data.sel(date=days))
        whole, reached = completed(
            joined,
            held.sel(date=days).load(),
            block.returns.where(block.usable).load(),
            spec.risk.calibration,
            reached,
            benchmarks=spec.benchmarks,
        )
        yield with_statistics(out_of_sample(whole, first), last.statistics())
    learnt = scores_in_sample(sample, restore(space, model, fits[-1].key), pd.Timestamp(fits[-1].as_of))
    state, facts = last.state(), {"kind": model.kind, "params": model.model_dump(mode="json"), "in_sample": learnt}
    space.work.put_arrays(Kind.STATES, name, state.arrays | named(reached or {}), {"state": state.meta, **facts})


def _served(space: Workspace, name: Key) -> Served:
    arrays, meta = space.work.get_arrays(Kind.ROWS, name)
    return Served(begin=meta["begin"], tickers=tuple(meta["tickers"]), **arrays)


def evaluate_risk(sample: Sample, risk: RiskRef) -> Metrics:
    """Add the evaluation of one model's forecasts and what moves its loadings; return its metrics. Runs on a worker."""
    space, name = sample.space, evaluation_key(risk)
    if not space.work.has(Kind.METRICS, name):  # kept last
        rows = space.work.open_dataset(Kind.RISKS, risk.key)
        arrays, facts = space.work.get_arrays(Kind.STATES, risk.key)
        last = registry.restore(model_spec(facts["params"]), ModelState(parted(arrays)[0], facts["state"]))
        timeless = with_explanation(rows.drop_dims("date"), last, sample.past(risk.fits[-1].as_of))
        explanation = timeless[[each for each in timeless if each not in rows]]
        space.work.put_dataset(Kind.EVALUATIONS, name, _evaluated(sample, rows, explanation))
        series = rows.drop_dims("ticker").merge(space.work.open_dataset(Kind.EVALUATIONS, name)).load()
        space.work.put_json(Kind.METRICS, name, metrics_of(series, facts["in_sample"], sample.spec.periods_per_year))
    found: Metrics = space.work.get_json(Kind.METRICS, name)
    return found


def _evaluated(sample: Sample, rows: xr.Dataset, explanation: xr.Dataset) -> Iterator[xr.Dataset]:
    """Score rows block by block, each beside the last row of the block before, and put what has no date beside them."""
    held, known, before = sample.held(), sample.known(), None
    for block in date_blocks(rows):
        days = slice(*block.indexes["date"][[0, -1]])
        data = known.data.sel(date=days)
        whole = scored(block.load(), data["returns"].load(), data["mask"].load(), held.sel(date=days).load(), before)
        before = whole[[each for each in FORECASTS if each in whole]].isel(date=[-1])
        yield whole[[each for each in whole if each not in rows]].merge(explanation)


def evaluation_key(risk: RiskRef) -> Key:
    """Name the evaluation of a risk model."""
    return key(Stage.EVALUATION.code(), risk=risk.key)
