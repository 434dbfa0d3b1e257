"""How well the rules of rows find what is known to be wrong, and how long the checks take.

    python -m benchmarks.data_quality PRICES.parquet [--output TABLES.md]

The file has columns date, ticker, open, high, low, close, volume, and `suspect`: a mark on returns known to be wrong,
which no rule sees. Four things are measured: the rules against the marks; how that moves with the thresholds;
faults of known size planted into the same data, on rows that no rule objects to and nobody marked; and one split per
stock whose adjustment is undone, on any row that is not marked. The tables of `docs/data-quality.md` come from here.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models import quality
from models.quality import jumps
from schemas.checks import CheckOverrides, declared
from tasks.checking import apply_quarantine, check_market, estimation_exclusions

Flags = npt.NDArray[np.bool_]
THRESHOLDS = {n: c.threshold for n, c in declared(CheckOverrides(), "daily").items() if c.threshold is not None}
MARK_SIZE = 0.095
"""A return was marked when another source differed by 10 points or more: smaller moves could not be marked."""
PLANTED = 200
UNKNOWN = {"lost_return"}
"""Rules that say what is not known, not what is wrong."""
SPLITS = {2.0: 0.8, 1.5: 0.1, 3.0: 0.04, 4.0: 0.02, 7.0: 0.01, 1.0 / 10.0: 0.02, 1.0 / 5.0: 0.01}
"""Ratios of splits, and how often each is planted."""
FIELDS = {
    "closes": ["close"],
    "closes and volumes": ["close", "volume"],
    "whole bars and volumes": ["open", "high", "low", "close", "volume"],
}


def main() -> None:
    """Read the file, measure, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("prices", type=Path)
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    market, marked = read(arguments.prices)
    sections = [
        against_marks(market, marked),
        by_threshold(market, marked),
        planted_faults(market, marked),
        planted_splits(market, marked),
        timing(market),
    ]
    text = "\n\n".join(sections)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> tuple[xr.Dataset, Flags]:
    """Read a long file of prices; return the market dataset and the marks, (date, ticker)."""
    frame = pd.read_parquet(path).set_index(["date", "ticker"]).to_xarray()
    marked = frame["suspect"].values == True  # noqa: E712  missing is not marked
    market = frame.drop_vars("suspect").astype(np.float64)
    return market.assign_coords(date=market["date"].values.astype("datetime64[ns]")), marked


def against_marks(market: xr.Dataset, marked: Flags) -> str:
    """Precision and recall of each rule, in each half of the dates."""
    rows = quality.flag_rows(market, THRESHOLDS, "daily")
    moves = np.abs(jumps.measure(rows.evidence["return"], _fields(market)).abnormal)
    any_jump = rows.any_jump
    assert any_jump is not None  # noqa: S101  daily closes always allow the rule of reversals
    found = {name: flags for name, flags in rows.flags.items() if flags.any() and name not in UNKNOWN}
    found["any rule of jumps"] = any_jump
    found["any rule"] = np.logical_or.reduce([flags for name, flags in rows.flags.items() if name not in UNKNOWN])
    half = len(marked) // 2
    lines = []
    for name, flags in found.items():
        large = flags & (moves >= MARK_SIZE)
        lines.append(
            (
                f"`{name}`" if name in rows.flags else name,
                flags.sum(),
                (flags & marked).sum(),
                _rate(flags & marked, marked),
                _rate(flags[:half] & marked[:half], marked[:half]),
                _rate(flags[half:] & marked[half:], marked[half:]),
                _rate(flags & marked, flags),
                f"{(large & marked).sum()} of {large.sum()}",
            )
        )
    head = (
        "rule",
        "rows flagged",
        "marked",
        "recall",
        "first half",
        "second half",
        "precision",
        "marked, of large ones",
    )
    clusters = quality.by_date(market, rows).nlargest(4, "jump_cluster")
    worst = ", ".join(f"{d} ({s:.1%})" for d, s in zip(clusters["date"], clusters["jump_cluster"], strict=True))
    unmarked = any_jump & ~marked & (moves >= MARK_SIZE)
    days, tickers = np.datetime_as_string(market["date"].values, unit="D"), quality.labels(market["ticker"])
    others = ", ".join(f"{tickers[column]} {days[row]}" for row, column in np.argwhere(unmarked))
    return (
        f"{_table(head, lines)}\n\n{marked.sum()} of {market['close'].count().item():,} rows are marked.\n"
        f"Large jumps that are flagged and not marked: {others}.\n"
        f"Dates with the largest shares of stocks with a jump: {worst}."
    )


def by_threshold(market: xr.Dataset, marked: Flags) -> str:
    """Show what other thresholds would have found: what was tuned to the marks falls off beside its default."""
    lines = []
    for factor in (0.5, 0.75, 1.0, 1.25, 1.5, 2.0):
        moved = THRESHOLDS | {rule: factor * THRESHOLDS[rule] for rule in jumps.RULES}
        found = quality.flag_rows(market, moved, "daily").any_jump
        assert found is not None  # noqa: S101
        lines.append((f"x {factor:g}", found.sum(), _rate(found & marked, marked), _rate(found & marked, found)))
    return _table(("all thresholds of jumps", "rows flagged", "recall", "precision"), lines)


def planted_faults(market: xr.Dataset, marked: Flags) -> str:
    """Plant faults of known size on random clean rows, one kind at once, and count those found where they are."""
    rng = np.random.default_rng(0)
    clean = ~marked & ~np.logical_or.reduce(list(quality.flag_rows(market, THRESHOLDS, "daily").flags.values()))
    clean &= np.isfinite(market["close"].values)
    clean[: jumps.WINDOW] = clean[-jumps.LOOKAHEAD - 1 :] = False
    clean &= rng.random(clean.shape) < 0.05
    columns = rng.permutation(np.flatnonzero(clean.any(axis=0)))[:PLANTED]
    places = [(int(rng.choice(np.flatnonzero(clean[:, column]))), int(column)) for column in columns]
    faults: dict[str, Callable[[xr.Dataset, int, int], None]] = {
        "high below low": lambda data, row, column: _set(data, "high", row, column, 0.9),
        "open below low": lambda data, row, column: _set(data, "open", row, column, 0.9),
        "price of 0": lambda data, row, column: _set(data, "close", row, column, 0.0),
        "print off by 5% for a day": lambda data, row, column: _scale(data, slice(row, row + 1), column, 1.05),
        "print off by 10% for a day": lambda data, row, column: _scale(data, slice(row, row + 1), column, 1.10),
        "print off by 20% for a day": lambda data, row, column: _scale(data, slice(row, row + 1), column, 1.20),
        "prints off by 10% for 3 days": lambda data, row, column: _scale(data, slice(row, row + 3), column, 1.10),
        "payout of 5%": lambda data, row, column: _scale(data, slice(row, None), column, 0.95),
        "payout of 10%": lambda data, row, column: _scale(data, slice(row, None), column, 0.90),
        "spin-off of 25%": lambda data, row, column: _scale(data, slice(row, None), column, 0.75),
        "split 2:1, not adjusted": lambda data, row, column: _split(data, row, column, 2.0),
        "reverse split 1:10, not adjusted": lambda data, row, column: _split(data, row, column, 0.1),
    }
    lines = []
    for name, plant in faults.items():
        faulty = market.copy(deep=True)
        for row, column in places:
            plant(faulty, row, column)
        flags = quality.flag_rows(faulty, THRESHOLDS, "daily").flags
        found = {rule: sum(bool(hit[place]) for place in places) for rule, hit in flags.items()}
        total = sum(any(bool(hit[place]) for hit in flags.values()) for place in places)
        told = ", ".join(f"`{rule}` {number / len(places):.0%}" for rule, number in found.items() if number)
        lines.append((name, f"{total / len(places):.0%}", told))
    return _table((f"planted {len(places)} times", "found", "by"), lines)


def planted_splits(market: xr.Dataset, marked: Flags) -> str:
    """Undo the adjustment of one split of each stock; count the splits found, the ratios told, and false flags."""
    rng = np.random.default_rng(0)
    faulty = market.copy(deep=True)
    known = np.isfinite(market["close"].values) & ~marked
    known[1:] &= np.isfinite(market["close"].values[:-1])
    known[: jumps.WINDOW] = False
    planted = {}
    for column in np.flatnonzero(known.sum(axis=0) > jumps.WINDOW):
        row = int(rng.choice(np.flatnonzero(known[:, column])))
        ratio = float(rng.choice(list(SPLITS), p=list(SPLITS.values())))
        _split(faulty, row, column, ratio)
        planted[row, int(column)] = ratio
    places = tuple(np.transpose(list(planted)))
    days, tickers = market.indexes["date"], pd.Index(quality.labels(market["ticker"]))
    lines = []
    for what, names in FIELDS.items():
        rows, plain = (quality.flag_rows(data[names], THRESHOLDS, "daily") for data in (faulty, market))
        any_jump = plain.any_jump
        assert any_jump is not None  # noqa: S101
        jump = np.logical_or.reduce([flags[places] for flags in rows.flags.values()])
        splits = quality.propose_splits(faulty[names], THRESHOLDS["split_like_jump"])
        cells = zip(days.get_indexer(splits["date"]), tickers.get_indexer(splits["ticker"]), strict=True)
        told = dict(zip(cells, splits["ratio"], strict=True))
        right = sum(told.get(place) == ratio for place, ratio in planted.items())
        wrong = sum(told.get(place, ratio) != ratio for place, ratio in planted.items())
        lines.append(
            (
                what,
                f"{jump.mean():.1%}",
                f"{rows.flags['split_like_jump'][places].mean():.1%}",
                f"{right / len(planted):.1%}",
                wrong,
                f"{(plain.flags['split_like_jump'] & ~marked).sum() / known.size:.4%}",
                f"{(any_jump & ~marked).sum() / known.size:.4%}",
                len(told) - right - wrong,
            )
        )
    head = (
        f"{len(planted)} splits in",
        "found",
        "by `split_like_jump`",
        "ratio right",
        "ratio wrong",
        "false flags of it",
        "of all rules of jumps",
        "adjusted elsewhere",
    )
    others = quality.propose_splits(market, THRESHOLDS["split_like_jump"])
    is_marked = marked[days.get_indexer(others["date"]), tickers.get_indexer(others["ticker"])]
    named = ", ".join(
        f"{ticker} {day:%Y-%m-%d} as {quality.ratio_in_words(ratio)}{' (marked)' if mark else ''}"
        for ticker, day, ratio, mark in zip(others["ticker"], others["date"], others["ratio"], is_marked, strict=True)
    )
    return f"{_table(head, lines)}\n\nIn the file as it is, `adjust: splits` adjusts: {named}."


def timing(market: xr.Dataset) -> str:
    """Time the checks of the whole file, after Great Expectations was imported."""
    check = functools.partial(
        check_market, sessions=None, frequency="daily", overrides=CheckOverrides(), data_docs=None
    )
    start = time.perf_counter()
    check(market.isel(date=slice(0, 30)))
    first = time.perf_counter()
    report, _ = check(market)
    checked = time.perf_counter()
    clean, _ = apply_quarantine(market, report)
    estimation_exclusions(clean, report)
    done = time.perf_counter()
    lines = [
        ("import of Great Expectations, and a first check of 30 dates", f"{first - start:.1f} s"),
        (f"check of {market['close'].size:,} rows", f"{checked - first:.2f} s"),
        ("quarantine and exclusions", f"{done - checked:.2f} s"),
    ]
    return _table(("step", "time"), lines)


def _fields(market: xr.Dataset) -> dict[str, npt.NDArray[np.float64]]:
    return {str(name): array.values for name, array in market.items()}


def _set(data: xr.Dataset, field: str, row: int, column: int, factor: float) -> None:
    data[field].values[row, column] = factor * data["low"].values[row, column]


def _scale(data: xr.Dataset, rows: slice, column: int, factor: float) -> None:
    for name in quality.PRICES:
        data[name].values[rows, column] *= factor


def _split(data: xr.Dataset, row: int, column: int, shares: float) -> None:
    _scale(data, slice(row, None), column, 1.0 / shares)
    data["volume"].values[row:, column] *= shares


def _rate(part: Flags, whole: Flags) -> str:
    return f"{part.sum() / max(1, whole.sum()):.0%}"


def _table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    rows = [list(head), *([str(cell) for cell in line] for line in lines)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
