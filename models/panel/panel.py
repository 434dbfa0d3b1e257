"""The panel: what a model sees. Excess returns r[t] beside the characteristics known *before* t.

Here belong the `Panel`, and the ways to make one from frames, datasets and plain arrays. How lag, coverage, mask
and transform come about, and how a cube is read span by span, belongs in `assembly`; what the
characteristics are, in `characteristics`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from models.arrays import BoolArray, CodeArray, FloatArray, IntArray
from models.panel.assembly import UNKNOWN, as_axis, assemble, order_industries, panel_blocks
from models.panel.frames import (
    INDUSTRY,
    RETURNS,
    Grid,
    aligned,
    excess_returns,
    grid,
    long_of_wide,
    long_of_xarray,
    long_table,
    names_of,
    numbers,
)
from schemas.errors import DataError, ModelError

_DIMS: dict[str, tuple[str, ...]] = {
    "returns": ("date", "ticker"),
    "characteristics": ("date", "ticker", "char"),
    "coverage": ("date", "ticker"),
    "mask": ("date", "ticker"),
    "market_weight": ("date", "ticker"),
}


@dataclass(frozen=True, eq=False)
class Panel:
    """Excess returns and what was known before them, on a dense grid of dates and tickers.

    Attributes
    ----------
    data : xarray.Dataset
        ``returns`` (date, ticker): excess simple returns per period, NaN where missing. ``characteristics``
        (date, ticker, char): float32, transformed, known before the date, NaN only where not covered.
        ``coverage`` (date, ticker): the characteristics are usable. ``mask`` (date, ticker): in the
        estimation universe, which means covered, eligible before the date, and with a return that no check
        suspects. ``market_weight`` (date, ticker): known before the date, sums to 1 over covered stocks; NaN on dates
        that cover nobody. Optionally ``trusted`` (date, ticker): the return is known and no check suspects it, covered
        or not; ``factors`` (date, observed_factor): observed factor returns at the date; ``industry`` (date, ticker):
        int16 position in the coordinate ``industry_name``, known before the date, -1 where unknown or not covered.

    Raises
    ------
    DataError
        If a variable is missing or has other dimensions, or if dates do not strictly increase.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from models import Panel
    >>> dates, tickers = pd.bdate_range("2024-01-01", periods=3), ["A", "B"]
    >>> returns = pd.DataFrame([[0.01, 0.02], [-0.01, 0.0], [0.0, np.nan]], dates, tickers)
    >>> size = pd.DataFrame([[1.0, 2.0], [3.0, 4.0], [6.0, 5.0]], dates, tickers)
    >>> panel = Panel.from_wide(returns, {"size": size})
    >>> panel.characteristics.sel(char="size").values.tolist()
    [[nan, nan], [-1.0, 1.0], [-1.0, 1.0]]
    >>> panel.mask.values.tolist()
    [[False, False], [True, True], [True, False]]
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        for name, dims in _DIMS.items():
            if name not in self.data or self.data[name].dims != dims:
                raise DataError(f"A panel needs the variable '{name}' with dimensions {dims}.")
        industry = self.data.get("industry")
        if industry is not None and (industry.dims != ("date", "ticker") or "industry_name" not in self.data.coords):
            raise DataError("Industries need the dimensions ('date', 'ticker') and names along 'industry_name'.")
        as_axis(self.data["date"].values)

    @classmethod
    def from_long(
        cls,
        frame: Any,
        *,
        returns: str = "ret",
        characteristics: Sequence[str] = (),
        lag: int = 1,
        date: str = "date",
        ticker: str = "ticker",
        transform: str = "rank",
        constant: bool = True,
        min_coverage: float = 0.5,
        factors: pd.DataFrame | None = None,
        industry: str | None = None,
    ) -> Self:
        """Build a panel from a long frame with one row per date and ticker.

        Parameters
        ----------
        frame : pandas.DataFrame or polars.DataFrame
            Columns for the date, the ticker, the excess return at the date, and the characteristics. Date and ticker
            may be the index, in either order. Dates as text are ``2014-12-31`` or ``20141231``; no other form is
            guessed.
        returns, date, ticker : str
            Names of those columns.
        characteristics : sequence of str
            Numeric columns to use.
        lag : int
            How many dates of the frame's own calendar a characteristic is shifted: 1 if a row holds what was
            known at the close of its date, 0 if it holds what was known before it.
        transform : str
            One of `models.panel.transforms.TRANSFORMS`: "rank", "standardise", "winsorise", "none".
        constant : bool
            Append a characteristic ``constant`` that is 1 on covered rows. This default and others are those of a
            config: `schemas.spec.PanelSpec`.
        min_coverage : float
            Smallest share of the characteristics that a stock must have to be covered; always at least one,
            and all of them under the transform "none". Without characteristics: the stock has a row.
        factors : pandas.DataFrame, optional
            Observed factor returns at the date, indexed by date; dates that it lacks become NaN, with a warning.
        industry : str, optional
            Column of industry names (or whole numbers, taken as names), lagged like a characteristic; missing where
            unknown.

        Raises
        ------
        DataError
            A column is missing or holds text, a date is not one, a (date, ticker) appears twice, a return loses more
            than everything, or the factors label other periods.
        ConfigError
            The transform is unknown, or the lag is negative.
        """
        table = long_table(frame, date, ticker)
        return cls._of_rows(
            table,
            grid(table, date, ticker),
            returns,
            characteristics,
            factors,
            industry,
            lag=lag,
            transform=transform,
            constant=constant,
            min_coverage=min_coverage,
        )

    @classmethod
    def from_wide(
        cls,
        returns: pd.DataFrame,
        characteristics: Mapping[str, pd.DataFrame] = MappingProxyType({}),
        *,
        lag: int = 1,
        transform: str = "rank",
        constant: bool = True,
        min_coverage: float = 0.5,
        factors: pd.DataFrame | None = None,
        industry: pd.DataFrame | None = None,
    ) -> Self:
        """Build a panel from frames of dates (index) by tickers (columns): the same as `from_long` of one long frame.

        Parameters
        ----------
        returns : pandas.DataFrame
            Excess returns at the date. Its dates and tickers are those of the panel; where a stock has neither a return
            nor a characteristic, it has no row.
        characteristics : mapping of str to pandas.DataFrame
            By name, in order; what they lack of the dates and tickers of the returns is missing.
        industry : pandas.DataFrame, optional
            Names of industries.
        lag, transform, constant, min_coverage, factors
            As in `from_long`.

        Raises
        ------
        DataError
            A frame names a date or a ticker twice, or one that the returns lack; or what `from_long` refuses.
        ConfigError
            The transform is unknown, or the lag is negative.
        """
        return cls._of_cells(
            long_of_wide(returns, characteristics, industry),
            [*characteristics],
            factors,
            lag=lag,
            transform=transform,
            constant=constant,
            min_coverage=min_coverage,
        )

    @classmethod
    def from_xarray(
        cls,
        dataset: xr.Dataset,
        *,
        lag: int = 1,
        transform: str = "rank",
        constant: bool = True,
        min_coverage: float = 0.5,
    ) -> Self:
        """Build a panel from a dataset: the same as `from_long` of one long frame.

        Parameters
        ----------
        dataset : xarray.Dataset
            ``returns`` (date, ticker): excess returns at the date. Optionally ``characteristics`` (date, ticker, char),
            ``industry`` (date, ticker) of names, ``factors`` (date, observed_factor). Dates and tickers in any order;
            where a stock has neither a return nor a characteristic, it has no row. A cube, which has an estimation
            universe and a risk-free rate too, is for `from_cube`.
        lag, transform, constant, min_coverage
            As in `from_long`.

        Raises
        ------
        DataError
            A variable is missing, unknown or has other dimensions; or what `from_long` refuses.
        ConfigError
            The transform is unknown, or the lag is negative.
        """
        frame = long_of_xarray(dataset)
        chars = [str(name) for name in dataset["char"].values] if "characteristics" in dataset else []
        factors = None
        if "factors" in dataset:
            observed = dataset["factors"].transpose("date", "observed_factor")
            factors = pd.DataFrame(observed.values, observed["date"].values, observed["observed_factor"].values)
        return cls._of_cells(
            frame, chars, factors, lag=lag, transform=transform, constant=constant, min_coverage=min_coverage
        )

    @classmethod
    def _of_cells(
        cls, table: pd.DataFrame, characteristics: Sequence[str], factors: pd.DataFrame | None, **options: Any
    ) -> Self:
        """Build the panel of a dense long frame: a cell of which nothing is known is no row, though its labels stay."""
        where = grid(table, "date", "ticker")
        filled = table.drop(columns=["date", "ticker"]).notna().any(axis=1).to_numpy()
        rows = Grid(where.row[filled], where.column[filled], where.dates, where.tickers)
        industry = INDUSTRY if INDUSTRY in table else None
        return cls._of_rows(table[filled], rows, RETURNS, characteristics, factors, industry, **options)

    @classmethod
    def _of_rows(
        cls,
        table: pd.DataFrame,
        where: Grid,
        returns: str,
        characteristics: Sequence[str],
        factors: pd.DataFrame | None,
        industry: str | None,
        **options: Any,
    ) -> Self:
        """Build the panel of a long frame whose rows lie where a grid says; the options are those of `panel_blocks`."""
        row, column, dates, tickers = where
        values = np.full((len(dates), len(tickers), 1 + len(characteristics)), np.nan)
        values[row, column, 0] = excess_returns(table, returns, where)
        for position, name in enumerate(characteristics, start=1):
            values[row, column, position] = numbers(table, name)
        present = np.zeros(values.shape[:2], dtype=np.bool_)
        present[row, column] = True
        cube = xr.Dataset(
            {
                "returns": (("date", "ticker"), values[..., 0]),
                "characteristics": (("date", "ticker", "char"), values[..., 1:]),
                "estimation": (("date", "ticker"), present),
            },
            coords={"date": dates, "ticker": tickers, "char": [*characteristics]},
        )
        if factors is not None:
            cube["factors"] = (("date", "observed_factor"), aligned(factors, dates))
            cube = cube.assign_coords(observed_factor=[str(name) for name in factors.columns])
        if industry is not None:
            groups = np.full(present.shape, UNKNOWN)
            groups[row, column], names = pd.factorize(names_of(table, industry))
            codes, found = order_industries(groups, [str(name) for name in names])
            cube["industry"] = (("date", "ticker"), codes)
            cube = cube.assign_coords(industry_name=found)
        return cls(next(panel_blocks(cube, **options, block=len(dates))))

    @classmethod
    def from_cube(
        cls,
        cube: xr.Dataset,
        *,
        next_date: Any = None,
        characteristics: Sequence[str] | None = None,
        transform: str = "rank",
        lag: int = 1,
        constant: bool = True,
        min_coverage: float = 0.5,
        market_portfolio: str | None = None,
    ) -> Self:
        """Build the panel of a cube, as a run does, in memory.

        Parameters
        ----------
        cube : xarray.Dataset
            As in `schemas.contracts.CUBE`, for example a snapshot that was opened with xarray.
        next_date : date-like, optional
            Label of one row more, for the session after the cube's last date: what is known at the last close.
        characteristics, transform, lag, constant, min_coverage, market_portfolio
            As in `models.panel.assembly.panel_blocks`, which says what is refused.
        """
        following = None if next_date is None else pd.Timestamp(next_date)
        whole = panel_blocks(
            cube,
            characteristics=characteristics,
            transform=transform,
            lag=lag,
            constant=constant,
            min_coverage=min_coverage,
            market_portfolio=market_portfolio,
            next_date=following,
            block=cube.sizes["date"] + 1,
        )
        return cls(next(whole))

    @classmethod
    def from_arrays(
        cls,
        returns: FloatArray,
        characteristics: FloatArray | None = None,
        *,
        mask: BoolArray | None = None,
        coverage: BoolArray | None = None,
        dates: Any = None,
        tickers: Sequence[str] | None = None,
        chars: Sequence[str] | None = None,
        factors: FloatArray | None = None,
        observed_factors: Sequence[str] | None = None,
        market_weight: FloatArray | None = None,
        industry: CodeArray | None = None,
        industries: Sequence[str] | None = None,
    ) -> Self:
        """Build a panel from arrays that are already lagged and transformed.

        Parameters
        ----------
        returns : numpy.ndarray
            (date, ticker) excess simple returns.
        characteristics : numpy.ndarray, optional
            (date, ticker, char) known before the date.
        mask : numpy.ndarray, optional
            (date, ticker) estimation universe; narrowed to covered stocks with a return. Default: all those.
        coverage : numpy.ndarray, optional
            (date, ticker). Default: where every characteristic is finite (everywhere if there are none).
        dates, tickers, chars, observed_factors : sequence, optional
            Labels. Default: business days from 2000-01-03, and numbered names.
        factors : numpy.ndarray, optional
            (date, observed_factor) observed factor returns.
        market_weight : numpy.ndarray, optional
            (date, ticker) weights known before the date; renormalised over covered stocks. Default: equal.
        industry : numpy.ndarray, optional
            (date, ticker) positions in ``industries``, known before the date; -1 where unknown.
        industries : sequence of str, optional
            Names of the industry codes. Default: numbered names.

        Raises
        ------
        DataError
            Shapes do not agree, dates do not increase, a covered stock lacks a characteristic, or an industry code has
            no name.
        """
        returns = np.asarray(returns)
        shape = returns.shape
        if characteristics is None:
            characteristics = np.empty((*shape, 0), dtype=np.float32)
        _check_shapes(shape, characteristics=characteristics, mask=mask, coverage=coverage, market_weight=market_weight)
        _check_shapes(shape, industry=industry)
        _check_shapes(shape[:1], factors=factors)
        if coverage is None:
            coverage = np.asarray(np.isfinite(characteristics).all(axis=2))
        if not np.isfinite(characteristics[coverage]).all():
            raise DataError("A covered stock lacks a characteristic: fill it, or leave it out of `coverage`.")
        data = assemble(
            returns=returns,
            characteristics=characteristics,
            eligible=np.ones(shape, dtype=np.bool_) if mask is None else mask,
            usable=mask,
            chars=_labels(chars, "char", characteristics.shape[2]),
            coverage=coverage,
            market_weight=market_weight,
            industry=industry,
            industries=[] if industry is None else _industry_names(industry, industries),
        )
        index = pd.bdate_range("2000-01-03", periods=shape[0]) if dates is None else dates
        data = data.assign_coords(date=as_axis(index), ticker=_labels(tickers, "stock", shape[1]))
        if factors is not None:
            data["factors"] = (("date", "observed_factor"), factors)
            data = data.assign_coords(observed_factor=_labels(observed_factors, "factor", factors.shape[1]))
        return cls(data)

    @property
    def returns(self) -> xr.DataArray:
        """(date, ticker) excess simple returns; NaN where missing."""
        return self.data["returns"]

    @property
    def characteristics(self) -> xr.DataArray:
        """(date, ticker, char) float32, known before the date; NaN only where not covered."""
        return self.data["characteristics"]

    @property
    def coverage(self) -> xr.DataArray:
        """(date, ticker) bool: the characteristics are usable."""
        return self.data["coverage"]

    @property
    def mask(self) -> xr.DataArray:
        """(date, ticker) bool: in the estimation universe, with a return."""
        return self.data["mask"]

    @property
    def usable(self) -> xr.DataArray:
        """(date, ticker) bool: the return may enter a number of its own stock, such as its specific variance.

        Of a covered stock those of the mask. A stock that is not covered yet is learnt from nowhere, and yet its own
        returns say how much it moves, unless a check suspects them.
        """
        uncovered = ~self.coverage & self.returns.notnull()
        own = uncovered & self.data["trusted"] if "trusted" in self.data else uncovered
        return (self.mask | own).rename("usable")

    @property
    def market_weight(self) -> xr.DataArray:
        """(date, ticker) weights known before the date, which sum to 1 on dates that cover anybody."""
        return self.data["market_weight"]

    @property
    def factors(self) -> xr.DataArray:
        """(date, observed_factor) observed factor returns; ModelError if the panel has none."""
        if "factors" not in self.data:
            raise ModelError("This panel has no observed factors; build it with `factors`, or from a cube with them.")
        return self.data["factors"]

    def observed(self, names: Sequence[str]) -> FloatArray:
        """(date, factor) float64 returns of some observed factors, in this order, NaN where missing.

        Raises
        ------
        ModelError
            If the panel has no observed factors, or lacks one of them.
        """
        known = [str(name) for name in self.factors["observed_factor"].values]
        missing = [name for name in names if name not in known]
        if missing:
            raise ModelError(f"The panel lacks the observed factors {missing}; it has {known}.")
        values: FloatArray = self.factors.sel(observed_factor=[*names]).values.astype(np.float64)
        return values

    @property
    def industry(self) -> xr.DataArray:
        """(date, ticker) int16 codes known before the date, -1 where unknown; ModelError if the panel has none."""
        if "industry" not in self.data:
            raise ModelError("This panel has no industries; build it with `industry`, or from a cube with them.")
        return self.data["industry"]

    @property
    def industries(self) -> list[str]:
        """Names of the industry codes, in order; empty if the panel has none."""
        return [str(name) for name in self.data["industry_name"].values] if "industry" in self.data else []

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The dates, which strictly increase."""
        return pd.DatetimeIndex(self.data.indexes["date"])

    @property
    def tickers(self) -> list[str]:
        """Names of the stocks, in order."""
        return [str(name) for name in self.data["ticker"].values]

    @property
    def chars(self) -> list[str]:
        """Names of the characteristics, in order."""
        return [str(name) for name in self.data["char"].values]

    def facts(self) -> dict[str, str]:
        """Tell in words how large the panel is, and how much of it is covered, estimated on and missing."""
        size = len(self.dates) * len(self.tickers)
        coverage, n_covered = self.coverage.values, int(self.coverage.sum())
        missing = int((coverage & ~self.data.get("trusted", self.mask).values).sum())
        return {
            "dates": _extent(self.dates),
            "tickers": str(len(self.tickers)),
            "characteristics": ", ".join(self.chars) or "none",
            "observed factors": ", ".join(map(str, self.data.indexes.get("observed_factor", ()))) or "none",
            "covered": f"{n_covered / size:.1%} of {size} cells",
            "in the estimation universe": f"{int(self.mask.sum()) / size:.1%}",
            "covered without a usable return": f"{missing / max(n_covered, 1):.1%}",
        }

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(told)}</td></tr>" for name, told in self.facts().items())
        return f"<b>Panel</b><table>{rows}</table>"

    def sel(self, start: Any = None, end: Any = None) -> Panel:
        """Dates from start to end, both inclusive; "2014-12" as an end means the whole of that month.

        Raises
        ------
        DataError
            If no date is left.
        """
        data = self.data.sel(date=slice(start, end))
        if data.sizes["date"] == 0:
            raise DataError(f"The panel has no date from {start} to {end}; it has {_extent(self.dates)}.")
        return Panel(data)

    def split(self, validation_start: Any, test_start: Any) -> tuple[Panel, Panel, Panel]:
        """Split into training (before validation_start), validation (before test_start) and test.

        Raises
        ------
        DataError
            If one of the three would be empty.
        """
        first, second = self.dates.searchsorted([pd.Timestamp(validation_start), pd.Timestamp(test_start)])
        if not 0 < first < second < len(self.dates):
            raise DataError(
                f"Validation from {validation_start} and test from {test_start} leave an empty part; "
                f"the panel has {_extent(self.dates)}."
            )
        train, validation, test = (slice(0, first), slice(first, second), slice(second, None))
        return self._at(train), self._at(validation), self._at(test)

    def view(self, stop: int, tickers: slice | IntArray) -> Panel:
        """Return the rows before a position and some of the tickers, by position, in one memory layout.

        Industries that no row of the view names are left out. What is not in memory stays where it is, see `laid`.
        """
        part = Panel(self.data.isel(date=slice(0, stop), ticker=tickers))
        view = part.load() if self.in_memory else part
        if "industry" in view.data:
            view = Panel(view.data.isel(industry_name=slice(0, int(view.industry.max()) + 1)))
        return view

    def laid(self) -> Panel:
        """Return the panel in one memory layout; characteristics that are not in memory stay where they are.

        How sums are rounded depends on the layout.
        """
        kept = set() if self.in_memory else {"characteristics"}
        names = {*self.data.data_vars} - kept
        return Panel(self.data.assign({name: _in_order(self.data[name]) for name in names}))

    def known(self, position: int) -> Panel:
        """Return the rows up to a date by position, with the tickers that have appeared by then."""
        past = self.data.isel(date=slice(0, position + 1))
        seen = (past["coverage"] | past["returns"].notnull()).any("date").values
        return self.view(position + 1, slice(None) if seen.all() else np.flatnonzero(seen))

    def awaiting(self, next_date: pd.Timestamp) -> Panel:
        """Take from the last row what happened on it, and give it the label of the next session: it is yet to come.

        A panel that ends with the row of that session is returned as it is.
        """
        if self.dates[-1] == next_date and not self.returns[-1].notnull().any():
            return self
        changed = {}
        for name, nothing in (("returns", np.nan), ("mask", False), ("trusted", False), ("factors", np.nan)):
            if name in self.data:
                changed[name] = self.data[name].load().copy()
                changed[name][-1] = nothing
        dates = pd.DatetimeIndex([*self.dates[:-1], next_date]).as_unit("ns").rename("date")
        return Panel(self.data.assign(changed).assign_coords(date=dates))

    def rows(self, start: int, stop: int) -> Panel:
        """Dates from start to stop (exclusive) by position, read into memory."""
        return self._at(slice(start, stop)).load()

    def __len__(self) -> int:
        """Return the number of dates."""
        return self.data.sizes["date"]

    def take(self, positions: IntArray, axis: int = 0) -> Panel:
        """Dates by position, in increasing order: the samples that a splitter of scikit-learn chooses.

        Characteristics are lagged already, so that dates in between may be left out.

        Raises
        ------
        DataError
            If positions do not increase, or the axis is another than that of dates, 0.
        """
        if axis != 0:
            raise DataError(f"A panel is taken apart along dates, axis 0, not along axis {axis}.")
        return Panel(self.data.isel(date=positions))

    @property
    def iloc(self) -> _Dates:
        """Dates by position, as in pandas: ``panel.iloc[:10]``; scikit-learn takes rows of what has it."""
        return _Dates(self)

    def spans(self, size: int = 256) -> Iterator[Panel]:
        """Consecutive spans of at most ``size`` dates, as views: nothing is read or copied."""
        for start in range(0, len(self.dates), size):
            yield self._at(slice(start, start + size))

    def blocks(self, size: int = 256) -> Iterator[Panel]:
        """Consecutive spans of at most ``size`` dates, each read into memory only when its turn comes."""
        return (span.load() for span in self.spans(size))

    def estimation_returns(self) -> FloatArray:
        """(date, ticker) returns of the estimation universe in the precision of their storage, NaN elsewhere."""
        return np.concatenate([np.where(span.mask.values, span.returns.values, np.nan) for span in self.spans()])

    @property
    def in_memory(self) -> bool:
        """Whether nothing is left to be read."""
        return all(array.variable._in_memory for array in self.data.data_vars.values())  # noqa: SLF001  # no public name

    def load(self) -> Panel:
        """Return the same panel, wholly in memory, in one layout: how sums are rounded depends on it."""
        return Panel(self.data.assign({name: _in_order(array) for name, array in self.data.data_vars.items()}))

    def _at(self, span: slice) -> Panel:
        return Panel(self.data.isel(date=span))


def _in_order(array: xr.DataArray) -> xr.DataArray:
    return array.copy(data=np.ascontiguousarray(array.values))


@dataclass(frozen=True, eq=False)
class _Dates:
    panel: Panel

    def __getitem__(self, positions: slice | IntArray) -> Panel:
        return Panel(self.panel.data.isel(date=positions))


def _check_shapes(leading: tuple[int, ...], **arrays: npt.NDArray[Any] | None) -> None:
    for name, array in arrays.items():
        if array is not None and array.shape[: len(leading)] != leading:
            raise DataError(f"`{name}` has shape {array.shape}, but returns ask for {leading} in front.")


def _labels(names: Sequence[str] | None, prefix: str, size: int) -> list[str]:
    labels = [f"{prefix}{i}" for i in range(size)] if names is None else [str(name) for name in names]
    if len(labels) != size:
        raise DataError(f"{size} {prefix}s need {size} names, not {len(labels)}.")
    return labels


def _industry_names(codes: CodeArray, names: Sequence[str] | None) -> list[str]:
    size = int(codes.max(initial=UNKNOWN)) + 1
    labels = _labels(names, "industry", size if names is None else len(names))
    if codes.min(initial=UNKNOWN) < UNKNOWN or size > len(labels) or len(set(labels)) < len(labels):
        raise DataError(
            f"Industry codes must be positions among {len(labels)} different names, or -1 where unknown; "
            f"they run from {codes.min(initial=UNKNOWN)} to {size - 1}."
        )
    return labels


def _extent(dates: pd.DatetimeIndex) -> str:
    return f"{len(dates)} dates" + (f" from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}" if len(dates) else "")
