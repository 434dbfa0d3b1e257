"""The step that fits models: every model as of every refit date, in pieces where it has them, side by side on Dask.

The functions that run on workers are idempotent and keep what they make under the hash of its inputs: a task that is
run again after its worker died, or in a later run, finds what is done. Arrays stay in the work store; only references
travel. What is made of the fits belongs in `tasks.assembling`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.families import registry
from models.families.base import FactorModel, ModelState
from models.families.linear import GramModel
from models.families.registry import build
from models.forecasting.joining import Realised
from models.forecasting.schedule import refit_dates, training
from models.panel import Panel
from models.statistics.gram import Design
from models.statistics.spans import DatedGram
from schemas.families import ModelSpec, with_bases
from schemas.refs import FitRef, Key, PanelRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.work import Kind
from tasks.artifacts import Progress
from tasks.cluster import Cluster, report_progress
from tasks.grams import dated_grams, gram_designs, make_span, missing_spans
from tasks.logs import run_logger
from tasks.panels import Sample
from tasks.provenance import key
from tasks.stages import Stage, family_code
from tasks.steps import step
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from distributed import Future

_SECONDS_BETWEEN_REPORTS = 2.0


@step("fit models", "fit {panel.universe} as of {panel.as_of}")
def fit_models(
    spec: RunSpec, models: list[ModelSpec], panel: PanelRef, cluster: Cluster, settings: Settings
) -> tuple[list[FitRef], dict[str, Exception]]:
    """Fit every model as of every refit date; references in the order of models and dates, and why others failed.

    Models that others are fitted on come first, whether they are asked for or not; those that last longest
    are begun first.
    """
    sample = Sample(Workspace.of_workers(settings), panel, spec)
    refits = _refits(sample)
    run_logger().info(
        "%d model(s) x %d refit(s), %s to %s",
        len(models), len(refits), f"{refits[0]:%Y-%m-%d}", f"{refits[-1]:%Y-%m-%d}",
    )  # fmt: skip
    needed = with_bases(models, spec.models)
    statistics = _submit_grams(sample, needed, cluster)
    futures: dict[str, list[Future[FitRef]]] = {}
    bases = {model.name: build(model).bases for model in needed}
    for model in sorted(needed, key=lambda item: (len(with_bases([item], spec.models)), -build(item).effort)):
        before: list[Future[Any]] = [*statistics[model.name]]
        before += [future for base in bases[model.name] for future in futures[base]]
        futures[model.name] = _submit_fits(sample, model, refits, cluster, before)
    found, failures = cluster.gather_each(futures, _described, Progress("fits", panel.universe), bases)
    asked = [model.name for model in models]
    fits: list[FitRef] = [fit for name in asked for fit in found.get(name, [])]
    for name in asked:
        dropped = max((ref.n_dropped for ref in fits if ref.model == name), default=0)
        if dropped:  # said once: each refit leaves out what those before it left out
            why = "singular, too few stocks, or nobody with some characteristic"
            run_logger().warning("%s: up to %d date(s) were left out of a fit (%s)", name, dropped, why)
    return fits, {name: failures[name] for name in asked if name in failures}


def _submit_fits(
    sample: Sample, model: ModelSpec, refits: list[pd.Timestamp], cluster: Cluster, before: list[Future[Any]]
) -> list[Future[FitRef]]:
    """Submit all fits of one model, each after its pieces, and after the first fit if it keeps something of that."""
    estimator, panel = build(model), sample.panel
    fits: list[Future[FitRef]] = []
    for as_of, until in zip(refits, [*refits[1:], pd.Timestamp(panel.next_date)], strict=True):
        first = fits[:1] if estimator.keeps_of_first else []
        pieces = [
            cluster.submit(
                fit_piece, sample, model, as_of, piece, [*before, *first],
                key=f"piece-{model.name}-{as_of:%Y-%m-%d}-{piece}-{panel.key[:8]}",
            )
            for piece in estimator.pieces()
        ]  # fmt: skip
        fits.append(
            cluster.submit(
                fit_model, sample, model, as_of, until, pieces, [*before, *first],
                key=f"fit-{model.name}-{as_of:%Y-%m-%d}-{panel.key[:8]}",
            )
        )  # fmt: skip
    return fits


def _submit_grams(sample: Sample, models: list[ModelSpec], cluster: Cluster) -> dict[str, list[Future[Key]]]:
    """Submit the Gram statistics that are not in the store, one future per span; for each model those that it needs."""
    spans: dict[Design, list[Future[Key]]] = {}
    needed = {}
    for model in models:
        designs = gram_designs(sample, build(model))
        for design in designs:
            if design not in spans:
                spans[design] = [
                    cluster.submit(
                        make_span, sample, design, start, stop,
                        key=f"gram-{sample.panel.universe}-{start}-{stop}-{sample.panel.key[:8]}",
                    )
                    for start, stop in missing_spans(sample, design)
                ]  # fmt: skip
        needed[model.name] = [future for design in designs for future in spans[design]]
    missing = sum(map(len, spans.values()))
    if missing:
        run_logger().info("Gram statistics: %d span(s) of dates to compute, of %d design(s)", missing, len(spans))
    return needed


def _described(ref: FitRef) -> str:
    return f"{'fitted' if ref.changed else 'already fitted:'} {ref.model} as of {ref.as_of}"


def fit_piece(
    sample: Sample,
    model: ModelSpec,
    as_of: pd.Timestamp,
    piece: str,
    _before: list[Any],  # what had to be made first
) -> Key:
    """Do one piece of a fit; return its key. Runs on a worker."""
    space = sample.space
    code = Stage.FITS.code(family_code(model.kind))
    name = key(code, fit=fit_key(sample, model, as_of), piece=piece)
    if not space.work.has(Kind.PIECES, name):
        told = _Told(f"{model.name} as of {as_of:%Y-%m-%d}")
        known = _known(sample, as_of)
        state = _estimator(sample, model, as_of).fit_piece(known, piece, told)
        told.finish()
        space.work.put_arrays(Kind.PIECES, name, state.arrays, state.meta)
    return name


def fit_model(
    sample: Sample,
    model: ModelSpec,
    as_of: pd.Timestamp,
    until: pd.Timestamp,
    pieces: list[Key],
    _before: list[Any],  # what had to be made first: spans of the Gram store, other models' fits, the first fit
) -> FitRef:
    """Fit one model as of one date, and say what latent factors returned up to the next refit. Runs on a worker."""
    space = sample.space
    name = fit_key(sample, model, as_of)
    changed = not space.work.has(Kind.FITS, name)
    n_dropped = 0
    if changed:
        estimator = _estimator(sample, model, as_of)
        _learn(estimator, sample, as_of, pieces)
        n_dropped = int(getattr(estimator, "n_dropped_", 0))
        state = estimator.state()
        space.work.put_arrays(Kind.FITS, name, state.arrays, {"state": state.meta})
    inputs = sample.inputs.digest(min(until.date(), sample.panel.as_of))
    since = sample.spec.risk.since(sample.inputs.position(as_of))
    realised_key = key(Stage.ROWS.code(), fit=name, inputs=inputs, until=f"{until:%Y-%m-%d}", since=since)
    if not space.work.has(Kind.REALISED, realised_key):
        found = Realised.of(restore(space, model, name), sample.until(until), since)
        arrays = {"dates": found.dates, "factor_returns": found.factor_returns}
        space.work.put_arrays(Kind.REALISED, realised_key, arrays, {})
    return FitRef(
        model=model.name,
        as_of=as_of.date(),
        until=until.date(),
        key=name,
        realised=realised_key,
        changed=changed,
        n_dropped=n_dropped,
    )


def _refits(sample: Sample) -> list[pd.Timestamp]:
    """Return the dates as of which models are fitted, up to the panel's; its rows need not be read for them."""
    dates = sample.inputs.dates[: sample.inputs.position(sample.panel.as_of) + 1]
    return refit_dates(dates, sample.spec.walk_forward, pd.Timestamp(sample.panel.next_date))


def _estimator(sample: Sample, model: ModelSpec, as_of: pd.Timestamp) -> FactorModel:
    """Make the unfitted model of a date: with what it keeps of the first fit, and on the models that it needs."""
    estimator = build(model)
    first = _refits(sample)[0]
    if estimator.keeps_of_first and as_of != first:
        estimator = estimator.refit(restore(sample.space, model, fit_key(sample, model, first)))
    below = _bases(sample, estimator)
    return estimator.on(*(restore(sample.space, base, fit_key(sample, base, as_of)) for base in below))


def _bases(sample: Sample, estimator: FactorModel) -> list[ModelSpec]:
    """Return the models of the run that a model is fitted on, in its order."""
    by_name = {model.name: model for model in sample.spec.models}
    return [by_name[name] for name in estimator.bases]


def _known(sample: Sample, as_of: pd.Timestamp) -> Panel:
    """Return the dates that a fit looks back on."""
    return training(sample.past(as_of), sample.spec.walk_forward.window).laid()


def _learn(estimator: FactorModel, sample: Sample, as_of: pd.Timestamp, pieces: list[Key]) -> None:
    """Fit an estimator to what was known as of a date, from Gram statistics if it can."""
    if isinstance(estimator, GramModel) and (grams := _grams(sample, estimator, as_of)):
        estimator.fit_gram(grams[0].gram, observed=grams[0].observed)
    elif pieces:
        states = [ModelState(*sample.space.work.get_arrays(Kind.PIECES, piece)) for piece in pieces]
        estimator.join(_known(sample, as_of), states)
    else:
        estimator.fit(_known(sample, as_of))


def scores_in_sample(sample: Sample, fitted: FactorModel, as_of: pd.Timestamp) -> dict[str, float]:
    """Score a fit on what it has learnt from: asked of the last one alone, for it takes as long as some fits."""
    if isinstance(fitted, GramModel) and (grams := _grams(sample, fitted, as_of)):
        return fitted.score_gram(grams[0].gram, observed=grams[0].observed, over=grams[-1].gram)
    return fitted.score(_known(sample, as_of))


def _grams(sample: Sample, model: FactorModel, as_of: pd.Timestamp) -> list[DatedGram]:
    """Return the statistics of the dates that a fit looks back on, one of each design; none if it needs the rows."""
    window = sample.spec.walk_forward.window
    known = [dated_grams(sample, design, as_of) for design in gram_designs(sample, model)]
    return known if window is None else [each.last(window) for each in known]


def fit_key(sample: Sample, model: ModelSpec, as_of: pd.Timestamp) -> Key:
    """Name a fit by what it learns from: the same data up to its date, whichever snapshot holds them."""
    estimator, first = build(model), _refits(sample)[0]
    return key(
        Stage.FITS.code(family_code(model.kind)),
        inputs=sample.inputs.digest(as_of),
        panel=sample.sees,
        model=model.model_dump(mode="json", exclude={"name"}),
        as_of=str(as_of),
        window=sample.spec.walk_forward.window,
        first=fit_key(sample, model, first) if estimator.keeps_of_first and as_of != first else None,
        bases=[fit_key(sample, base, as_of) for base in _bases(sample, estimator)],
    )


def restore(space: Workspace, model: ModelSpec, name: Key) -> FactorModel:
    """Rebuild a fitted model from the work store."""
    arrays, meta = space.work.get_arrays(Kind.FITS, name)
    return registry.restore(model, ModelState(arrays, meta["state"]))


class _Told:
    """Passes on what a fit says of its progress, at most one line every two seconds, and the last one."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()
        self._line: str | None = None

    def __call__(self, line: str) -> None:
        self._line = line
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_REPORTS:
            self._last = time.monotonic()
            report_progress(f"  {self._what}: {line}")

    def finish(self) -> None:
        """Report the end."""
        if self._line is not None:
            report_progress(f"  {self._what}: {self._line}, done")
