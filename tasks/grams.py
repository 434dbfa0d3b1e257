"""The Gram store: per-date statistics of a panel, kept in the work store beside it, and shared by all linear models.

Here belong what an entry is named by, and how entries become what a fit asks for. The maths of one date belongs in
`models.statistics.gram`, how dates are cut into entries in `models.statistics.spans`.

A span is named by its position, by the design, by what a model sees, and by the chained digest of the data at its last
date. So an entry never changes: a date that is appended adds a span and reads those before it, a date that is restated
leaves every span before it valid and none after it, and a snapshot, a run, a window or a model that looks at the same
data finds the same entries. The statistics of a date depend on its own rows alone, so that it makes no difference in
which span they were computed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from models.families.base import FactorModel
from models.families.linear import GramModel
from models.panel import Panel
from models.statistics.gram import Design, GramStatistics
from models.statistics.spans import DatedGram, dated_gram, designs_of, halves, joined, pieces, spans
from schemas.refs import Key
from storage.work import Kind
from tasks.panels import Sample
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace


def gram_designs(sample: Sample, estimator: FactorModel) -> list[Design]:
    """Return the designs of the statistics that a model is fitted to, and scored on; none if it needs the rows."""
    opened = Panel(_opened(sample.space, sample.panel.key))
    return designs_of(estimator.design(opened) if isinstance(estimator, GramModel) else None)


def missing_spans(sample: Sample, design: Design) -> list[tuple[int, int]]:
    """Positions (start, stop) of the spans up to the panel's as-of date that are not in the store."""
    return _missing(sample, design, spans(sample.inputs.position(sample.panel.as_of) + 1))


def make_span(sample: Sample, design: Design, start: int, stop: int) -> Key:
    """Compute one span unless it is there, from shorter ones where they are; return its key. Runs on a worker."""
    space, names = sample.space, _names(sample, design)
    name = names(start, stop)
    if not space.work.has(Kind.GRAMS, name):
        shorter = space.work.among(Kind.GRAMS, (names(*span) for span in halves(start, stop)))
        parts = []
        for first, last, known in pieces(start, stop, lambda *span: names(*span) in shorter):
            rows = _opened(sample.space, sample.panel.key).isel(date=slice(first, last))
            parts.append(_load(space, names(first, last)) if known else dated_gram(rows, design))
        _store(space, name, joined(parts))
    return name


def dated_grams(sample: Sample, design: Design, until: pd.Timestamp) -> DatedGram:
    """Return the statistics of all dates of a panel up to one; those that are not in the store are made and kept.

    They are bit for bit those of `models.statistics.gram.gram_of` on the panel's view of that date.

    Parameters
    ----------
    sample : Sample
        Whose panel is opened only for dates that are not in the store.
    design : Design
        What the statistics are made of.
    until : pandas.Timestamp
        The last date, not after the panel's own.
    """
    inputs = sample.inputs
    last = inputs.position(until)
    cover = [span for span in spans(inputs.position(sample.panel.as_of) + 1) if span[0] <= last]
    for span in _missing(sample, design, cover):
        make_span(sample, design, *span)
    names = _names(sample, design)
    known = _assembled(sample.space, tuple(names(*span) for span in cover))
    return known.until(last, inputs.dates[last], design)


def _missing(sample: Sample, design: Design, cover: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    names = _names(sample, design)
    named = {span: names(*span) for span in cover}
    known = sample.space.work.among(Kind.GRAMS, named.values())
    return [span for span, name in named.items() if name not in known]


def _names(sample: Sample, design: Design) -> Callable[[int, int], Key]:
    """Give the name of a span of these data; the rest of a spec has no say in it."""
    code, digests = Stage.GRAMS.code(), sample.inputs.digests
    facts = {"panel": sample.sees, "design": asdict(design)}
    return lambda start, stop: key(code, inputs=digests[stop - 1], start=start, stop=stop, **facts)


@lru_cache(maxsize=2)
def _opened(space: Workspace, name: Key) -> xr.Dataset:
    return space.work.open_dataset(Kind.PANELS, name)


def _store(space: Workspace, name: Key, span: DatedGram) -> None:
    """Keep a span, of each symmetric matrix the upper triangle: half the bytes to write, read and check."""
    gram = span.gram
    arrays = {
        "zz": gram.zz[:, *np.triu_indices(len(gram.chars))],
        "zr": gram.zr,
        "rr": gram.rr,
        "n": gram.n,
        "weight": gram.weight,
        "date": gram.dates.as_unit("ns").asi8,
        "named": span.named,
    }
    if gram.caps is not None:
        arrays["caps"] = gram.caps
    facts: dict[str, Any] = {"chars": [*gram.chars]}
    if span.observed is not None:
        arrays["observed"] = span.observed.values
        facts["observed"] = [str(factor) for factor in span.observed["observed_factor"].values]
    space.work.put_arrays(Kind.GRAMS, name, arrays, facts)


def _load(space: Workspace, name: Key) -> DatedGram:
    arrays, facts = space.work.get_arrays(Kind.GRAMS, name)
    dates = pd.DatetimeIndex(arrays["date"].view("datetime64[ns]"), name="date")
    chars = tuple(facts["chars"])
    upper = np.triu_indices(len(chars))
    zz = np.empty((len(dates), len(chars), len(chars)))
    zz[:, *upper] = arrays["zz"]
    zz[:, *upper[::-1]] = arrays["zz"]
    by_date = {name: arrays[name] for name in ("zr", "rr", "n", "weight")}
    gram = GramStatistics(zz, **by_date, dates=dates, chars=chars, caps=arrays.get("caps"))
    observed = None
    if "observed" in facts:
        coords = {"date": dates, "observed_factor": facts["observed"]}
        observed = xr.DataArray(arrays["observed"], coords, ("date", "observed_factor"), name="factors")
    return DatedGram(gram, arrays["named"], observed)


@lru_cache(maxsize=2)
def _assembled(space: Workspace, names: tuple[Key, ...]) -> DatedGram:
    """Join stored spans; each worker keeps the last ones in memory, since all refits of a model look at the same."""
    return joined([_load(space, name) for name in names])
