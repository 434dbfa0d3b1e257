"""The steps of an ingest: read and keep the source, check it, derive and commit the cube.

Nothing becomes visible before the one commit at the end; whatever happens before leaves readers with the old snapshot.
An ingest of a span of dates reads, checks and derives the whole source all the same, since what is known at a date
looks back; it commits the dates of the span alone.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models import quality
from models.characteristics.cube import derive_cube
from schemas.base import digest
from schemas.checks import CheckReport, declared
from schemas.contracts import CUBE, SourceFile, validate
from schemas.errors import CheckError, CubeError, SourceError
from schemas.refs import RawRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import sources
from storage.cube import Cube
from storage.files import user, write_atomic
from storage.work import Kind
from tasks.artifacts import publish_check_table
from tasks.events import announce_failed_checks, announce_snapshot
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace

_INGEST_FIELDS = {"universe", "frequency", "calendar", "currency", "characteristics", "portfolios", "checks"}


@step("read source", "read {spec.universe}", retried=True)
def read_source(spec: RunSpec, settings: Settings, start: date | None = None, end: date | None = None) -> RawRef:
    """Read the market data, factors and industries as they come, and keep them; the key is the hash of their content.

    A span of dates, both inclusive, says what is to be committed of them.

    Raises
    ------
    SourceError
        If the source changed between hashing and reading, so that the hash would name other data.
    """
    work = Workspace.of(settings).work
    files = source_files(spec, settings)
    raw = RawRef(
        universe=spec.universe, key=_ingest_key(spec, files), source=_source_key(spec, files), start=start, end=end
    )
    if not work.has(Kind.RAW, raw.source):
        market = sources.read_market(spec.data, frequency=spec.frequency, calendar=spec.calendar, settings=settings)
        observed = sources.read_factors(
            spec.factors,
            dates=pd.DatetimeIndex(market.indexes["date"]),
            frequency=spec.frequency,
            calendar=spec.calendar,
            settings=settings,
        )
        if source_files(spec, settings) != files:
            raise SourceError(
                f"the source of {spec.universe} changed while it was being read; run again when it is whole"
            )
        groups = sources.read_industries(spec.industries, market=market, frequency=spec.frequency, settings=settings)
        parts = xr.merge([market, *(part for part in (observed, groups) if part is not None)], join="left")
        work.put_dataset(Kind.RAW, raw.source, parts, attrs={"sources": [file.model_dump() for file in files]})
        run_logger().info(
            "read %d dates x %d tickers, %s to %s",
            market.sizes["date"], market.sizes["ticker"],
            _day(market.indexes["date"][0]), _day(market.indexes["date"][-1]),
        )  # fmt: skip
    return raw


def head_snapshot(universe: str, settings: Settings) -> SnapshotRef:
    """Return the newest snapshot of a cube.

    Raises
    ------
    CubeError
        If there is no cube, or nothing was ingested into it by a run.
    """
    head = Cube.open(Workspace.of(settings).layout, universe).head()
    if head is None or not {"ingest_key", "checks_key"} <= set(head.metadata):
        raise CubeError(f"cube '{universe}' holds no ingest; run the ingest of the universe first")
    return SnapshotRef(
        universe=universe,
        snapshot_id=head.id,
        ingest_key=head.metadata["ingest_key"],
        checks_key=head.metadata["checks_key"],
        changed=False,
    )


def source_files(spec: RunSpec, settings: Settings) -> tuple[SourceFile, ...]:
    """Name and hash of every input of a run."""
    return tuple(file for source in spec.sources for file in sources.fingerprint(source, settings))


def ingest_config(spec: RunSpec) -> dict[str, Any]:
    """Return what decides an ingest beside the source itself and the code."""
    shapes = [source.reading() for source in spec.sources]
    return {"shapes": shapes, "spec": spec.model_dump(mode="json", include=_INGEST_FIELDS)}


def _ingest_key(spec: RunSpec, files: tuple[SourceFile, ...]) -> str:
    return key(Stage.INGEST.code(), files=[file.model_dump() for file in files], **ingest_config(spec))


def _source_key(spec: RunSpec, files: tuple[SourceFile, ...]) -> str:
    read = {"frequency": spec.frequency, "calendar": spec.calendar, "shapes": ingest_config(spec)["shapes"]}
    return key(Stage.READING.code(), files=[file.model_dump() for file in files], **read)


@step("find snapshot", "find snapshot of {spec.universe}")
def find_snapshot(spec: RunSpec, raw: RawRef, settings: Settings) -> SnapshotRef | None:
    """Return the head of the cube if it already holds exactly this ingest, made by this code."""
    space = Workspace.of(settings)
    try:
        head = Cube.open(space.layout, spec.universe).head()
    except CubeError:
        return None
    record = ingest_record(raw.ingest_key, head.id if head else "")
    if not space.work.has(Kind.INGESTS, record):
        return None
    known = SnapshotRef.model_validate(space.work.get_json(Kind.INGESTS, record))
    run_logger().info("the cube already holds these data (snapshot %s); nothing to ingest", known.snapshot_id)
    return known.model_copy(update={"changed": False})


@step("check data", "check {spec.universe}")
def check_data(spec: RunSpec, raw: RawRef, settings: Settings) -> str:
    """Run the quality checks on raw data; return the key of the report.

    Raises
    ------
    CheckError
        If a check that blocks the whole ingest fails.
    """
    from tasks import checking

    space = Workspace.of(settings)
    if raw.span is None or not space.work.has(Kind.CHECKS, raw.key):
        market, _, _ = _raw_data(space, spec, raw)
        found = checking.check_market(
            market,
            sessions=None if spec.calendar == "none" else _sessions(spec, market),
            frequency=spec.frequency,
            overrides=spec.checks,
            data_docs=space.layout.data_docs(spec.universe),
        )
        space.work.put_json(Kind.CHECKS, raw.key, _portable(found, settings))
    report = CheckReport.model_validate(space.work.get_json(Kind.CHECKS, raw.key))
    publish_check_table(spec.universe, report)
    announce_failed_checks(spec.universe, report)
    _refuse_blocked(report)
    for result in report.results:
        if not result.passed:
            run_logger().warning(
                "check %s (%s): %d failure(s), %s", result.check, result.severity, result.failures, result.observed
            )
    return raw.key


@step("write cube", "write cube of {spec.universe}", retried=True)
def write_cube(spec: RunSpec, raw: RawRef, checks_key: str, settings: Settings) -> SnapshotRef:
    """Quarantine what is blocked, derive the cube's variables from the rest, and commit them at once."""
    from tasks import checking

    space, log = Workspace.of(settings), run_logger()
    report = CheckReport.model_validate(space.work.get_json(Kind.CHECKS, checks_key))
    derived, beside = _derived(space, spec, raw, report)
    cube = Cube.open_or_create(space.layout, spec.universe)
    head = cube.head()
    previous = None if head is None else cube.open_dataset(head.id)
    late = checking.check_derived(
        derived,
        previous=previous,
        frequency=spec.frequency,
        overrides=spec.checks,
        data_docs=space.layout.data_docs(spec.universe),
    )
    merged = checking.merge([report, late])
    derived_key = key(
        Stage.INGEST.code(), checks=raw.ingest_key, step="derived", snapshot=None if head is None else head.id
    )
    space.work.put_json(Kind.CHECKS, derived_key, _portable(merged, settings))
    publish_check_table(spec.universe, merged)
    announce_failed_checks(spec.universe, late)
    _refuse_blocked(late)
    for what, (suffix, rows) in beside.items():
        if len(rows):
            path = space.layout.quarantine(spec.universe) / f"{raw.ingest_key}{suffix}.csv"
            write_atomic(path, rows.to_csv(index=False))
            log.warning("%s: %d, listed in %s", what, len(rows), path)
    commit = cube.upsert(
        derived,
        message=f"ingest {_day(derived.indexes['date'][0])} to {_day(derived.indexes['date'][-1])}",
        metadata={
            "who": user(),
            "ingest_key": raw.ingest_key,
            "checks_key": derived_key,
            "sources": space.work.open_dataset(Kind.RAW, raw.source).attrs["sources"],
        },
    )
    log.info("cube %s: snapshot %s%s", spec.universe, commit.snapshot_id, "" if commit.changed else " (unchanged)")
    ref = SnapshotRef(
        universe=spec.universe,
        snapshot_id=commit.snapshot_id,
        ingest_key=raw.ingest_key,
        changed=commit.changed,
        checks_key=derived_key,
    )
    space.work.put_json(Kind.INGESTS, ingest_record(raw.ingest_key, commit.snapshot_id), ref.model_dump(mode="json"))
    announce_snapshot(ref, previous, derived)
    return ref


def _derived(
    space: Workspace, spec: RunSpec, raw: RawRef, report: CheckReport
) -> tuple[xr.Dataset, dict[str, tuple[str, pd.DataFrame]]]:
    """Compute what is to be committed, and what to list beside it; ingests of many spans derive the source once.

    Lists by what they say, each with the end of its file's name.
    """
    from tasks import checking

    market, observed, splits = _raw_data(space, spec, raw)
    clean, quarantined = checking.apply_quarantine(market, report)
    beside = {"quarantined rows": ("", quarantined)}
    if splits is not None:
        beside["adjusted splits"] = ("-splits", splits)
    if raw.span is None or not space.work.has(Kind.DERIVED, raw.key):
        excluded = checking.estimation_exclusions(market, report)
        refuted = checking.refuted_returns(market, report)
        derived = derive_cube(clean, observed, excluded, _sessions(spec, clean), spec, refuted)
        validate(derived, CUBE, CubeError, f"cube of {spec.universe}")
        if raw.span is None:
            return derived, beside
        space.work.put_dataset(Kind.DERIVED, raw.key, derived)
    span = slice(*(None if day is None else f"{day}" for day in (raw.start, raw.end)))
    derived = space.work.open_dataset(Kind.DERIVED, raw.key).sel(date=span).load()
    if not derived.sizes["date"]:
        raise SourceError(f"the source of {spec.universe} has no data from {raw.start} to {raw.end}")
    first, last = derived.indexes["date"][[0, -1]]
    return derived, {what: (end, rows[rows["date"].between(first, last)]) for what, (end, rows) in beside.items()}


def _portable(report: CheckReport, settings: Settings) -> dict[str, Any]:
    """Return the report as JSON, its Data Docs named relative to the root, which may move."""
    content = report.model_dump(mode="json")
    if report.data_docs is not None:
        content["data_docs"] = Path(report.data_docs).relative_to(settings.root).as_posix()
    return content


def ingest_record(ingest_key: str, snapshot_id: str) -> str:
    """Key of the record that a snapshot holds the data of an ingest."""
    return digest([ingest_key, snapshot_id])[:32]


def _raw_data(
    space: Workspace, spec: RunSpec, raw: RawRef
) -> tuple[xr.Dataset, xr.Dataset | None, pd.DataFrame | None]:
    """Market data, what was observed beside them, and the splits that the config wants adjusted and that were."""
    whole = space.work.open_dataset(Kind.RAW, raw.source).load()
    beside = [name for name in ("factors", "risk_free", "industry") if name in whole]
    market = whole.drop_vars([*beside, "observed_factor", "industry_name"], errors="ignore").drop_attrs()
    names = [name for name in ("observed_factor", "industry_name") if name in whole]
    splits = None
    if spec.adjusts_splits:
        sigmas = declared(spec.checks, spec.frequency)["split_like_jump"].threshold
        splits = quality.propose_splits(market, float(sigmas or 0.0))
        market = quality.adjust_splits(market, splits)
    return market, whole[[*beside, *names]] if beside else None, splits


def _sessions(spec: RunSpec, market: xr.Dataset) -> pd.DatetimeIndex:
    dates = pd.DatetimeIndex(market.indexes["date"])
    if spec.frequency == "monthly":
        return pd.date_range(dates[0], dates[-1], freq="ME")
    return dates if spec.calendar == "none" else sources.sessions(spec.calendar, dates[0], dates[-1])


def _refuse_blocked(report: CheckReport) -> None:
    if report.blocked_ingest:
        failed = [result for result in report.failed if (result.severity, result.scope) == ("block", "ingest")]
        reasons = "; ".join(f"{r.check}: {r.observed} (expected {r.expected})" for r in failed)
        raise CheckError(f"the ingest is blocked and nothing was written: {reasons}")


def _day(date: Any) -> str:
    return str(np.datetime64(date, "D"))
