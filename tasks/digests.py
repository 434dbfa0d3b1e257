"""The digests of the data behind a run, read from a snapshot and kept in the work store.

What they are, and how they are chained, belongs in `models.panel.digests`.
"""

from __future__ import annotations

from datetime import date
from itertools import islice

import numpy as np
import pandas as pd
import xarray as xr

from models.panel.digests import Chain, DataDigests, digest_chain
from schemas.refs import Key, SnapshotRef
from schemas.spec import RunSpec
from storage.cube import Cube
from storage.work import Kind
from tasks.provenance import key
from tasks.snapshots import open_span
from tasks.stages import Stage
from tasks.workspace import Workspace

_LOOKED_BACK = 32
"""Snapshots before one among which those whose rows were hashed are looked for."""


def input_digests(space: Workspace, spec: RunSpec, snapshot: SnapshotRef) -> dict[date, str]:
    """Return the hash of all rows up to each date that the numbers of a spec depend on.

    The same data give the same digests, whatever was appended later and whichever tickers were added later.
    """
    inputs = read_inputs(space, spec, snapshot)
    return {stamp.date(): digest for stamp, digest in zip(inputs.dates, inputs.digests, strict=True)}


def read_inputs(space: Workspace, spec: RunSpec, snapshot: SnapshotRef) -> DataDigests:
    """Hash the span of a snapshot that a spec uses, block by block; kept in the work store."""
    name = _key(spec, snapshot.snapshot_id)
    if not space.work.has(Kind.DIGESTS, name):
        cube = open_span(space, spec, snapshot)
        portfolios = [item.name for item in spec.portfolios]
        chain = digest_chain(cube, _characteristics(cube, spec), portfolios, _known(space, spec, snapshot, cube))
        facts = {
            "dates": [f"{day:%Y-%m-%d}" for day in cube.indexes["date"]],
            "start": chain.start,
            "digests": chain.digests,
            "tickers": [str(ticker) for ticker in cube["ticker"].values],
        }
        arrays = {"first_seen": chain.first_seen, "named": np.array(chain.named, dtype=np.int64)}
        space.work.put_arrays(Kind.DIGESTS, name, arrays, facts)
    return stored_inputs(space, name)


def _key(spec: RunSpec, snapshot_id: str) -> Key:
    portfolios = [item.name for item in spec.portfolios]
    span = spec.panel.model_dump(mode="json", include={"start", "end", "characteristics"})
    return key(Stage.DIGESTS.code(), universe=spec.universe, snapshot=snapshot_id, span=span, portfolios=portfolios)


def _known(space: Workspace, spec: RunSpec, snapshot: SnapshotRef, span: xr.Dataset) -> Chain | None:
    """Return the digests of the rows that a span has in common with the last earlier snapshot that was hashed."""
    stored = Cube.open(space.layout, spec.universe)
    for earlier in islice(stored.before(snapshot.snapshot_id), _LOOKED_BACK):
        name = _key(spec, earlier)
        if space.work.has(Kind.DIGESTS, name):
            arrays, facts = space.work.get_arrays(Kind.DIGESTS, name)
            common = stored.dates_in_common(earlier, snapshot.snapshot_id)
            count = min(len(common) - int(common.searchsorted(span.indexes["date"][0])), len(facts["dates"]))
            place = pd.Index(facts["tickers"]).get_indexer(span.indexes["ticker"])
            first_seen = np.where(place < 0, span.sizes["date"], arrays["first_seen"][place])
            return Chain(facts["start"], tuple(facts["digests"][:count]), first_seen, tuple(arrays["named"][:count]))
    return None


def stored_inputs(space: Workspace, name: Key) -> DataDigests:
    """Read from the work store what `read_inputs` has kept there."""
    arrays, facts = space.work.get_arrays(Kind.DIGESTS, name)
    return DataDigests(
        key=name,
        dates=pd.DatetimeIndex(facts["dates"]).as_unit("ns").rename("date"),
        digests=tuple(facts["digests"]),
        tickers=np.array(facts["tickers"], dtype=np.str_),
        first_seen=arrays["first_seen"],
    )


def _characteristics(cube: xr.Dataset, spec: RunSpec) -> list[str]:
    stored = [str(name) for name in cube["char"].values] if "characteristics" in cube else []
    return stored if spec.panel.characteristics is None else [n for n in spec.panel.characteristics if n in stored]
