"""The Gram store: per-date statistics of a panel, kept in the work store beside it, and shared by all linear models.

Here belong how the dates of a panel are cut into entries, what an entry is named by, and how entries become the
`models.statistics.gram.GramStatistics` that a fit asks for. The maths of one date belongs in `models.statistics.gram`.

The dates of a panel, by position from its first, are cut into blocks of 64, and what is left at the end into spans of
32, 16, ... 1 dates. A span is named by its position, by the design, by what a model sees, and by the chained digest of
the data at its last date. So an entry never changes: a date that is appended adds a span and reads those before it, a
date that is restated leaves every span before it valid and none after it, and a snapshot, a run, a window or a model
that looks at the same data finds the same entries. The statistics of a date depend on its own rows alone
(`models.statistics.gram.gram_statistics`), so that it makes no difference in which span they were computed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models import FactorModel, Panel
from models.families.linear import GramModel
from models.statistics.gram import Design, GramStatistics, gram_of, read_blocks
from schemas.refs import Key, PanelRef
from schemas.spec import RunSpec
from tasks.digests import Inputs
from tasks.panels import panel_inputs
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace

BLOCK_DATES = 64
_KIND = "grams"


@dataclass(frozen=True, eq=False)
class DatedGram:
    """Statistics of consecutive dates, and what a fit must know beside them.

    Attributes
    ----------
    gram : GramStatistics
    named : numpy.ndarray
        (date,) number of industries of the panel that have been named from the first date of the span up to this one.
    observed : xarray.DataArray or None
        (date, observed_factor) observed factor returns, if the panel has them.
    """

    gram: GramStatistics
    named: npt.NDArray[np.int64]
    observed: xr.DataArray | None

    def last(self, n_dates: int) -> DatedGram:
        """Return the last dates; all of them if there are fewer."""
        rows = slice(max(0, len(self.named) - n_dates), None)
        gram = self.gram.sel(start=self.gram.dates[rows][0])
        return DatedGram(gram, self.named[rows], None if self.observed is None else self.observed[rows])


def gram_designs(space: Workspace, panel: PanelRef, estimator: FactorModel) -> list[Design]:
    """Return the designs of the statistics that a model is fitted to, and scored on; none if it needs the rows.

    The second one has equal weights, as R2 over the estimation universe has; it may be the first.
    """
    design = estimator.design(Panel(_opened(space.root, panel.key))) if isinstance(estimator, GramModel) else None
    if design is None:
        return []
    return [design] if design.weighting == "equal" else [design, replace(design, weighting="equal", caps=False)]


def training_grams(
    space: Workspace, panel: PanelRef, spec: RunSpec, design: Design, as_of: pd.Timestamp, window: int | None
) -> DatedGram:
    """Return the statistics of the last ``window`` dates up to one, or of all of them."""
    known = dated_grams(space, panel, spec, design, as_of)
    return known if window is None else known.last(window)


def grams(space: Workspace, panel: PanelRef, spec: RunSpec, design: Design, until: pd.Timestamp) -> GramStatistics:
    """Return the statistics of all dates of a panel up to one; those that are not in the store are made and kept.

    They are bit for bit those of `models.statistics.gram.gram_of` on `tasks.panels.past_panel`.

    Parameters
    ----------
    space : Workspace
        Where they are kept.
    panel : PanelRef
        The panel, which is opened only for dates that are not in the store.
    spec : RunSpec
        What a model sees.
    design : Design
        What the statistics are made of.
    until : pandas.Timestamp
        The last date, not after the panel's own.
    """
    return dated_grams(space, panel, spec, design, until).gram


def missing_spans(space: Workspace, panel: PanelRef, spec: RunSpec, design: Design) -> list[tuple[int, int]]:
    """Positions (start, stop) of the spans up to the panel's as-of date that are not in the store."""
    inputs = panel_inputs(space, panel)
    names = _names(spec, inputs, design)
    cover = spans(inputs.position(panel.as_of) + 1)
    return [span for span in cover if not space.work.has(_KIND, names(*span))]


def make_span(root: Path, panel: PanelRef, spec: RunSpec, design: Design, start: int, stop: int) -> str:
    """Compute one span unless it is there, from shorter ones where they are; return its key. Runs on a worker."""
    space = Workspace(root)
    names = _names(spec, panel_inputs(space, panel), design)
    name = names(start, stop)
    if not space.work.has(_KIND, name):
        parts = []
        for first, last, known in _pieces(start, stop, lambda *span: space.work.has(_KIND, names(*span))):
            parts.append(_load(space, names(first, last)) if known else _compute(root, panel.key, design, first, last))
        _store(space, name, _joined(parts))
    return name


def spans(n_dates: int) -> Iterator[tuple[int, int]]:
    """Cut positions 0 to n_dates into blocks, and the rest into spans of falling powers of two, all aligned."""
    start, size = 0, BLOCK_DATES
    while start < n_dates:
        while start + size > n_dates:
            size //= 2
        yield start, start + size
        start += size


def dated_grams(space: Workspace, panel: PanelRef, spec: RunSpec, design: Design, until: pd.Timestamp) -> DatedGram:
    """Return `grams`, and what a fit must know beside them."""
    inputs = panel_inputs(space, panel)
    last = inputs.position(until)
    cover = [span for span in spans(inputs.position(panel.as_of) + 1) if span[0] <= last]
    known = _assembled(space.root, tuple(make_span(space.root, panel, spec, design, *span) for span in cover))
    named = known.named[: last + 1]
    gram = known.gram.sel(end=inputs.dates[last])
    industries = len(gram.chars) - len(design.chars) - design.intercept
    later = range(int(named[-1]) + design.intercept, industries + design.intercept)
    if later:
        gram = gram.select([label for place, label in enumerate(gram.chars) if place not in later])
    return DatedGram(gram, named, None if known.observed is None else known.observed[: last + 1])


def _names(spec: RunSpec, inputs: Inputs, design: Design) -> Callable[[int, int], Key]:
    """Give the name of a span of these data; the rest of a spec has no say in it."""
    facts = {"panel": spec.panel.model_dump(mode="json", exclude={"start", "end"}), "design": asdict(design)}
    return lambda start, stop: key(Stage.GRAMS.code(), inputs=inputs.digests[stop - 1], start=start, stop=stop, **facts)


def _pieces(start: int, stop: int, known: Callable[[int, int], bool]) -> Iterator[tuple[int, int, bool]]:
    """Cut a span into the largest aligned spans that are known, and whatever lies between them."""
    begin = start
    for first, last in _largest_known(start, stop, known):
        if begin < first:
            yield begin, first, False
        yield first, last, True
        begin = last
    if begin < stop:
        yield begin, stop, False


def _largest_known(start: int, stop: int, known: Callable[[int, int], bool]) -> Iterator[tuple[int, int]]:
    if known(start, stop):
        yield start, stop
    elif stop - start > 1:
        middle = (start + stop) // 2
        yield from _largest_known(start, middle, known)
        yield from _largest_known(middle, stop, known)


def _compute(root: Path, panel: Key, design: Design, start: int, stop: int) -> DatedGram:
    """Compute the statistics of dates of a stored panel, reading only these."""
    rows = _opened(root, panel).isel(date=slice(start, stop))
    named = np.zeros(stop - start, dtype=np.int64)
    if design.industries and "industry" in rows:
        codes = rows["industry"].load()
        named = np.maximum.accumulate(codes.max("ticker").values.astype(np.int64) + 1)
        rows = rows.assign(industry=codes).isel(industry_name=slice(0, int(named[-1])))
    observed = rows["factors"].load() if "factors" in rows else None
    parts = [gram_of(block, design) for block in read_blocks(Panel(rows))]  # a worker has no second core to read ahead
    return DatedGram(GramStatistics.concat(parts), named, observed)


@lru_cache(maxsize=2)
def _opened(root: Path, name: Key) -> xr.Dataset:
    return Workspace(root).work.open_dataset("panels", name)


def _joined(parts: Sequence[DatedGram]) -> DatedGram:
    """Join spans along the date; an industry has zeros before it was named."""
    if len(parts) == 1:
        return parts[0]
    labels = max((part.gram.chars for part in parts), key=len)
    gram = GramStatistics.concat([_spread(part.gram, labels) for part in parts])
    named = np.maximum.accumulate(np.concatenate([part.named for part in parts]))
    observed = [part.observed for part in parts if part.observed is not None]
    return DatedGram(gram, named, xr.concat(observed, "date") if observed else None)


def _spread(gram: GramStatistics, labels: tuple[str, ...]) -> GramStatistics:
    """Give statistics the rows and columns of more regressors, which are zero."""
    if gram.chars == labels:
        return gram
    place = np.array([labels.index(label) for label in gram.chars])
    zz, zr = np.zeros((len(gram.n), len(labels), len(labels))), np.zeros((len(gram.n), len(labels)))
    zz[:, place[:, None], place] = gram.zz
    zr[:, place] = gram.zr
    caps = None
    if gram.caps is not None:
        caps = np.zeros((len(gram.n), gram.caps.shape[1] + len(labels) - len(gram.chars)))
        caps[:, : gram.caps.shape[1]] = gram.caps  # industries are named in order, and only they can be more
    return replace(gram, zz=zz, zr=zr, chars=labels, caps=caps)


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
    space.work.put_arrays(_KIND, name, arrays, facts)


def _load(space: Workspace, name: Key) -> DatedGram:
    arrays, facts = space.work.get_arrays(_KIND, name)
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
def _assembled(root: Path, names: tuple[Key, ...]) -> DatedGram:
    """Join stored spans; each worker keeps the last ones in memory, since all refits of a model look at the same."""
    space = Workspace(root)
    return _joined([_load(space, name) for name in names])
