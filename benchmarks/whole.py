"""A whole market, from a file to a published version and its daily update: 25 years of all tickers that ever traded.

Here belongs the size. The stages are those of `benchmarks.scale`; the market model is refitted each quarter of the last
ten years, on all dates before.
"""

from __future__ import annotations

from benchmarks.harness import Row
from benchmarks.scale import MODELS, QUICK, Plan, Size, measured, row

WHOLE = Size(6_300, 7_000)
PLAN = Plan(MODELS[:1], window=None, first=0.6, most_bytes=8 * 2**30)


def run(*, quick: bool) -> list[Row]:
    """Time the stages; a row for each."""
    size = QUICK if quick else WHOLE
    return [row(name, size, stage) for name, stage in measured(size, PLAN).items()]
