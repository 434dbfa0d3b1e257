"""The steps that run on Dask workers: fit one member or one model as of one date, and project it up to the next refit.

Every function here is idempotent and keeps its result under the hash of its inputs: a task that is run again after its
worker died, or in a later run, finds what is done. Arrays stay in the work store; only references travel.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from models import ConditionalAutoencoder, FactorModel, ModelState, Panel
from models.families.autoencoder import EpochReport, Member
from models.families.linear import GramModel
from models.statistics.gram import Design
from schemas.modelspecs import AutoencoderSpec, ModelSpec
from schemas.refs import FitRef, PanelRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from tasks.artifacts import Progress
from tasks.cluster import Cluster, report_progress
from tasks.grams import gram_designs, make_span, missing_spans, training_grams
from tasks.logs import run_logger
from tasks.panels import known_panel, panel_inputs, past_panel
from tasks.planning import refit_dates
from tasks.projection import project
from tasks.provenance import key
from tasks.registry import MODELS, build, family_code
from tasks.stages import Stage
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from distributed import Future

_SECONDS_BETWEEN_REPORTS = 2.0


def fit_all(
    spec: RunSpec, models: list[ModelSpec], panel: PanelRef, cluster: Cluster, settings: Settings
) -> list[FitRef]:
    """Fit every model as of every refit date, side by side on Dask; references in the order of models and dates."""
    space = Workspace(settings.root)
    refits = _refits(space, panel, spec)
    run_logger().info(
        "%d model(s) x %d refit(s), %s to %s",
        len(models), len(refits), f"{refits[0]:%Y-%m-%d}", f"{refits[-1]:%Y-%m-%d}",
    )  # fmt: skip
    statistics = _submit_grams(spec, models, panel, cluster, space)
    futures = []
    for model in sorted(models, key=lambda item: not isinstance(item, AutoencoderSpec)):
        first: list[Future[FitRef]] = []  # which later fits wait for
        for as_of, until in zip(refits, [*refits[1:], pd.Timestamp(panel.next_date)], strict=True):
            before = [*statistics.get(model.name, []), *first]
            if isinstance(model, AutoencoderSpec):
                before = [
                    cluster.submit(
                        fit_member, settings.root, panel, spec, model, as_of, seed,
                        key=f"member-{model.name}-{as_of:%Y-%m-%d}-{seed}-{panel.key[:8]}",
                    )
                    for seed in model.seeds
                ]  # fmt: skip
            futures.append(
                cluster.submit(
                    fit_model, settings.root, panel, spec, model, as_of, until, refits[0] == as_of, before,
                    key=f"fit-{model.name}-{as_of:%Y-%m-%d}-{panel.key[:8]}",
                )
            )  # fmt: skip
            if as_of == refits[0] and _counts_factors(model):
                first = [futures[-1]]
    done: list[FitRef] = cluster.gather(futures, _described, Progress("fits", panel.universe))
    order = {model.name: position for position, model in enumerate(models)}
    return sorted(done, key=lambda ref: (order[ref.model], ref.as_of))


fit_models = task(name="fit models", task_run_name="fit {panel.universe} as of {panel.as_of}", cache_policy=NO_CACHE)(
    fit_all
)


def _submit_grams(
    spec: RunSpec, models: list[ModelSpec], panel: PanelRef, cluster: Cluster, space: Workspace
) -> dict[str, list[Future[str]]]:
    """Submit the Gram statistics that are not in the store, one future per span; for each model those that it needs."""
    spans: dict[Design, list[Future[str]]] = {}
    needed = {}
    for model in models:
        designs = gram_designs(space, panel, build(model))
        for design in designs:
            if design not in spans:
                spans[design] = [
                    cluster.submit(
                        make_span, space.root, panel, spec, design, start, stop,
                        key=f"gram-{panel.universe}-{start}-{stop}-{panel.key[:8]}",
                    )
                    for start, stop in missing_spans(space, panel, spec, design)
                ]  # fmt: skip
        needed[model.name] = [future for design in designs for future in spans[design]]
    missing = sum(map(len, spans.values()))
    if missing:
        run_logger().info("Gram statistics: %d span(s) of dates to compute, of %d design(s)", missing, len(spans))
    return needed


def _described(ref: FitRef) -> str:
    return f"{'fitted' if ref.changed else 'already fitted:'} {ref.model} as of {ref.as_of}"


def fit_member(
    root: Path, panel: PanelRef, spec: RunSpec, model: AutoencoderSpec, as_of: pd.Timestamp, seed: int
) -> str:
    """Train one network of an ensemble; return its key. Runs on a worker."""
    space = Workspace(root)
    fit_key = _fit_key(space, panel, spec, model, as_of)
    member_key = key(Stage.FITS.code(family_code(model.kind)), fit=fit_key, seed=seed)
    if not space.work.has("members", member_key):
        estimator = build(model)
        assert isinstance(estimator, ConditionalAutoencoder)  # noqa: S101  # narrows the type for the reader and mypy
        watch = _EpochWatch(f"{model.name} as of {as_of:%Y-%m-%d}, seed {seed}")
        member = estimator.fit_seed(_training_panel(space, panel, spec, as_of), seed, callback=watch)
        watch.finish()
        space.work.put_arrays("members", member_key, *_pack(member))
    return member_key


def fit_model(
    root: Path,
    panel: PanelRef,
    spec: RunSpec,
    model: ModelSpec,
    as_of: pd.Timestamp,
    until: pd.Timestamp,
    earliest: bool,  # Dask passes arguments by position
    before: list[Any],
) -> FitRef:
    """Fit one model as of one date and project it over the dates it serves. Runs on a worker.

    ``before`` refers to what had to be made first: the members of an ensemble, spans of the Gram store, or the first
    fit of a model that chooses its number of factors.
    """
    space = Workspace(root)
    if not earliest and _counts_factors(model):
        model = _numbered(space, panel, spec, model)
    fit_key = _fit_key(space, panel, spec, model, as_of)
    changed = not space.work.has("fits", fit_key)
    if changed:
        estimator = build(model)
        in_sample = _learn(estimator, space, panel, spec, as_of, before)
        dropped = getattr(estimator, "n_dropped_", 0)
        if dropped:
            why = "singular, too few stocks, or nobody with some characteristic"
            report_progress(f"  {model.name} as of {as_of:%Y-%m-%d}: {dropped} date(s) were left out ({why})")
        state = estimator.state()
        space.work.put_arrays("fits", fit_key, state.arrays, {"state": state.meta, "in_sample": in_sample})
    inputs = panel_inputs(space, panel).digest(min(until.date(), panel.as_of))
    projection_key = key(
        Stage.ROWS.code(),
        fit=fit_key,
        inputs=inputs,
        until=str(until),
        earliest=earliest,
        specific=spec.specific.model_dump(),
    )
    if not space.work.has("projections", projection_key):
        known = past_panel(space, panel, until) if until.date() <= panel.as_of else known_panel(space, panel)
        arrays = project(restore(space, model, fit_key), known, as_of, until, spec.specific, earliest=earliest)
        space.work.put_arrays("projections", projection_key, arrays, {"fit": fit_key, "tickers": known.tickers})
    return FitRef(model=model.name, as_of=as_of.date(), until=until.date(), key=projection_key, changed=changed)


def _refits(space: Workspace, panel: PanelRef, spec: RunSpec) -> list[pd.Timestamp]:
    """Return the dates as of which models are fitted, up to the panel's; its rows need not be read for them."""
    inputs = panel_inputs(space, panel)
    dates = inputs.dates[: inputs.position(panel.as_of) + 1]
    return refit_dates(dates, spec.walk_forward, pd.Timestamp(panel.next_date))


def _counts_factors(model: ModelSpec) -> bool:
    """Whether a rule chooses the number of factors."""
    return isinstance(getattr(model, "n_factors", None), str)


def _numbered(space: Workspace, panel: PanelRef, spec: RunSpec, model: ModelSpec) -> ModelSpec:
    """Give a model the number of factors that its rule chose at the first refit: the axis of a version is one."""
    first = _refits(space, panel, spec)[0]
    chosen = restore(space, model, _fit_key(space, panel, spec, model, first))
    return model.model_copy(update={"n_factors": len(chosen.factors_)})


def _learn(
    estimator: FactorModel, space: Workspace, panel: PanelRef, spec: RunSpec, as_of: pd.Timestamp, before: list[Any]
) -> dict[str, float]:
    """Fit an estimator to what was known as of a date, from Gram statistics if it can; return its scores on that."""
    designs = gram_designs(space, panel, estimator)
    if isinstance(estimator, GramModel) and designs:
        window = spec.walk_forward.window
        known = [training_grams(space, panel, spec, design, as_of, window) for design in designs]
        estimator.fit_gram(known[0].gram, observed=known[0].observed)
        return estimator.score_gram(known[0].gram, observed=known[0].observed, over=known[-1].gram)
    train = _training_panel(space, panel, spec, as_of)
    if isinstance(estimator, ConditionalAutoencoder):
        estimator.combine(train, [_unpack(*space.work.get_arrays("members", member)) for member in before])
    else:
        estimator.fit(train)
    return estimator.score(train)


def _fit_key(space: Workspace, panel: PanelRef, spec: RunSpec, model: ModelSpec, as_of: pd.Timestamp) -> str:
    """Name a fit by what it learns from: the same data up to its date, whichever snapshot holds them."""
    return key(
        Stage.FITS.code(family_code(model.kind)),
        inputs=panel_inputs(space, panel).digest(as_of),
        panel=spec.panel.model_dump(mode="json", exclude={"start", "end"}),
        model=model.model_dump(mode="json", exclude={"name"}),
        as_of=str(as_of),
        window=spec.walk_forward.window,
    )


def _pack(member: Member) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    layers = {f"weight_{n}": weight for n, weight in enumerate(member.weights)}
    layers |= {f"bias_{n}": bias for n, bias in enumerate(member.biases)}
    arrays = {**layers, "factor_weight": member.factor_weight, "factor_bias": member.factor_bias}
    return arrays, {"layers": len(member.weights), "history": [asdict(report) for report in member.history]}


def _unpack(arrays: dict[str, npt.NDArray[Any]], meta: dict[str, Any]) -> Member:
    return Member(
        weights=tuple(arrays[f"weight_{n}"] for n in range(meta["layers"])),
        biases=tuple(arrays[f"bias_{n}"] for n in range(meta["layers"])),
        factor_weight=arrays["factor_weight"],
        factor_bias=arrays["factor_bias"],
        history=tuple(EpochReport(**report) for report in meta["history"]),
    )


def restore(space: Workspace, model: ModelSpec, fit_key: str) -> FactorModel:
    """Rebuild a fitted model from the work store."""
    arrays, meta = space.work.get_arrays("fits", fit_key)
    return MODELS[model.kind].from_state(model.params(), ModelState(arrays, meta["state"]))


def _training_panel(space: Workspace, panel: PanelRef, spec: RunSpec, as_of: pd.Timestamp) -> Panel:
    known = past_panel(space, panel, as_of)
    window = spec.walk_forward.window
    return known if window is None else known.sel(start=known.dates[-min(window, len(known.dates))])


class _EpochWatch:
    """Reports epochs of one network, at most one line every two seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._last = time.monotonic()
        self._report: EpochReport | None = None

    def __call__(self, report: EpochReport) -> None:
        self._report = report
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_REPORTS:
            self._last = time.monotonic()
            report_progress(f"  {self._line(report)}")

    def finish(self) -> None:
        """Report the end of the training."""
        if self._report is not None:
            report_progress(f"  {self._line(self._report)}, done")

    def _line(self, report: EpochReport) -> str:
        return (
            f"{self._what}: epoch {report.epoch}, 1 - R2 {report.train_loss:.4f} in training, "
            f"{report.validation_loss:.4f} on validation"
        )
