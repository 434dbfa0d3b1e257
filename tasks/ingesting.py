"""The steps of an ingest: read and keep the source, check it, derive and commit the cube.

Nothing becomes visible before the one commit at the end; whatever happens before leaves readers with the old snapshot.
What is read is put into the record of the cube, and the whole cube is derived from that anew: what is known at a date
looks back further than a delivery may reach (ADR 0016). Of a delivery that begins after all that there is, the end of
the market is enough (ADR 0030). Of a source that has more than the dates asked for, those dates alone are delivered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.deliveries import as_record, tidied
from models.quality import labels
from schemas.checks import CheckReport
from schemas.contracts import Ingest, SourceFile
from schemas.errors import ConflictError, CubeError, SourceError
from schemas.refs import RawRef, SnapshotRef
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage import sources
from storage.arrays import MAX_CHUNK_DATES
from storage.cube import Cube
from storage.files import staging, write_atomic
from storage.work import Kind
from tasks.artifacts import publish_check_table
from tasks.committing import Change, commit_record, ingest_record, portable
from tasks.delivering import Delivery, State, left_of
from tasks.describing import Described, refuse_blocked
from tasks.events import announce_failed_checks
from tasks.following import Tail, keep_survey
from tasks.logs import run_logger
from tasks.provenance import key
from tasks.stages import Stage
from tasks.steps import step
from tasks.workspace import Workspace

_INGEST_FIELDS = {
    "universe", "frequency", "calendar", "currency", "delivery", "characteristics", "portfolios", "checks"
}  # fmt: skip
_ATTEMPTS = 8
"""How often a delivery is put into a cube that another writer has changed meanwhile."""


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
        frequency, calendar = spec.frequency, spec.calendar
        market = sources.open_market(spec.data, settings=settings, frequency=frequency, calendar=calendar)
        observed = sources.read_factors(
            spec.factors, dates=market.dates, settings=settings, frequency=frequency, calendar=calendar
        )
        if source_files(spec, settings) != files:
            raise SourceError(
                f"the source of {spec.universe} changed while it was being read; run again when it is whole"
            )
        groups = sources.open_industries(
            spec.industries, settings=settings, frequency=frequency, tickers=market.tickers
        )
        spans = (
            as_record(span, observed, None if groups is None else groups.on(pd.DatetimeIndex(span.indexes["date"])))
            for span in market.spans(MAX_CHUNK_DATES)
        )
        attrs = {"sources": [file.model_dump() for file in files]}
        work.put_dataset(Kind.RAW, raw.source, spans, attrs=attrs, tiles=True)
        run_logger().info(
            "read %d dates x %d tickers, %s to %s",
            len(market.dates), len(market.tickers), _day(market.dates[0]), _day(market.dates[-1]),
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
    """Run the quality checks on the market as it will be after this delivery; return the key of the report.

    Raises
    ------
    CheckError
        If a check that blocks the whole ingest fails.
    """
    space, state = Workspace.of(settings), State.of(_cube(Workspace.of(settings), spec.universe))
    spec.recipe.beside(state.recipe)  # so that a config that does not fit is refused before anything is checked
    with _delivery(space, spec, raw) as delivery:
        name, report = _report(space, spec, raw, delivery, state, settings)
    publish_check_table(spec.universe, report)
    announce_failed_checks(spec.universe, report)
    refuse_blocked(report)
    for result in report.results:
        if not result.passed:
            run_logger().warning(
                "check %s (%s): %d failure(s), %s", result.check, result.severity, result.failures, result.observed
            )
    return name


@step("write cube", "write cube of {spec.universe}", retried=True)
def write_cube(spec: RunSpec, raw: RawRef, checks_key: str, settings: Settings) -> SnapshotRef:
    """Put the delivery into the record, quarantine what is blocked, derive the cube from the rest, commit all at once.

    Should another writer commit meanwhile, the delivery is checked and put into what that one has left.
    """
    space = Workspace.of(settings)
    for attempt in range(_ATTEMPTS):
        state = State.of(_cube(space, spec.universe))
        with _delivery(space, spec, raw) as delivery:
            name, report = _report(space, spec, raw, delivery, state, settings)
            if name != checks_key:
                refuse_blocked(report)
            try:
                return _written(space, spec, raw, delivery, state, name, report, settings)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
    raise AssertionError("unreachable")


def _written(
    space: Workspace,
    spec: RunSpec,
    raw: RawRef,
    delivery: Delivery,
    state: State,
    name: str,
    report: CheckReport,
    settings: Settings,
) -> SnapshotRef:
    log = run_logger()
    first, last = delivery.span
    recipe = delivery.recipe.beside(state.recipe)
    tail = Tail.of(space, state, delivery)
    record: xr.Dataset | Tail
    rebased: list[str] = []
    if tail is not None and tail.tells(report):
        delivered, record = tail.looked_at, tail
        log.info("the delivery follows what there is: dates from %s on are derived", _day(tail.first_derived))
    else:
        delivered, rebased = delivery.on(state)
        landing = delivered
        if report.blocked_dates:
            landing, rebased = delivery.on(state, report)
        record = tidied(landing)
        if not record.sizes["date"]:
            raise SourceError(f"every date of the source of {spec.universe} is blocked; nothing was written")
    for what, (suffix, rows) in _beside(delivery, delivered, report).items():
        if len(rows):
            path = space.layout.quarantine(spec.universe) / f"{raw.ingest_key}{suffix}.csv"
            write_atomic(path, rows.to_csv(index=False))
            log.warning("%s: %d, listed in %s", what, len(rows), path)
    if rebased:
        log.warning(
            "prices before %s of %d ticker(s) were put on the basis of this delivery: %s",
            first, len(rebased), ", ".join(rebased[:5]),
        )  # fmt: skip
    files = space.work.open_dataset(Kind.RAW, raw.source).attrs["sources"]
    new = Ingest(
        ingest_key=raw.ingest_key,
        kind=delivery.kind,
        spans=((first, last),),
        sources=tuple(SourceFile.model_validate(file) for file in files),
    )
    change = Change(
        key=raw.ingest_key,
        message=f"ingest {first} to {last}",
        span=(first, last),
        ingests=left_of(state.ingests, new, report.blocked_dates),
        facts={"sources": files, **({"rebased": rebased} if rebased else {})},
        survey_key=name if space.work.has(Kind.SURVEYS, name) else None,
    )
    return commit_record(space, spec.universe, state, record, recipe, report, change, settings)


@contextmanager
def _delivery(space: Workspace, spec: RunSpec, raw: RawRef) -> Iterator[Delivery]:
    """Give the delivery, with a folder that is there as long as it is looked at."""
    span = slice(*(None if day is None else f"{day}" for day in (raw.start, raw.end)))
    rows = space.work.open_dataset(Kind.RAW, raw.source).sel(date=span).drop_attrs().drop_encoding()
    if not rows.sizes["date"]:
        raise SourceError(f"the source of {spec.universe} has no data from {raw.start} to {raw.end}")
    with staging(space.layout.work(Kind.RAW)) as folder:
        yield Delivery(rows=rows, kind=spec.delivery, recipe=spec.recipe, folder=folder)


def _report(
    space: Workspace, spec: RunSpec, raw: RawRef, delivery: Delivery, state: State, settings: Settings
) -> tuple[str, CheckReport]:
    """Return what the checks say of a delivery to a cube in some state, and where that is kept."""
    name = key(Stage.INGEST.code(), ingest=raw.ingest_key, step="checked", snapshot=state.snapshot_id)
    if not space.work.has(Kind.CHECKS, name):
        docs = space.layout.data_docs(spec.universe)
        tail = Tail.of(space, state, delivery)
        found, survey = (tail and tail.checked(state, docs)) or delivery.checked(state, docs)
        if survey is not None and delivery.recipe.adjust is None:
            keep_survey(space, name, survey)
        space.work.put_json(Kind.CHECKS, name, portable(found, settings))
    return name, CheckReport.model_validate(space.work.get_json(Kind.CHECKS, name))


def _beside(delivery: Delivery, delivered: xr.Dataset, report: CheckReport) -> dict[str, tuple[str, pd.DataFrame]]:
    """Return what to list of the dates of a delivery, by what it says, each with the end of its file's name.

    ``delivered`` is the record with all that the delivery says, also on dates that are kept out.
    """
    from tasks import checking

    given = Described.of(delivered, delivery.recipe)
    parts = [checking.blocked_rows(block, report) for block in given.market]
    place = pd.Index(labels(delivered["ticker"]))
    quarantined = pd.concat([rows for rows in parts if len(rows)] or parts[:1], ignore_index=True)
    order = np.lexsort((place.get_indexer(pd.Index(quarantined["ticker"])), quarantined["date"]))
    lists = {"quarantined rows": ("", quarantined.iloc[order])}
    if given.splits is not None:
        lists["adjusted splits"] = ("-splits", given.splits)
    days = delivery.rows.indexes["date"]
    return {what: (suffix, rows[rows["date"].isin(days)]) for what, (suffix, rows) in lists.items()}


def _cube(space: Workspace, universe: str) -> Cube | None:
    try:
        return Cube.open(space.layout, universe)
    except CubeError:
        return None


def _day(date: Any) -> str:
    return str(np.datetime64(date, "D"))
