"""Which characteristics there are, what each needs, and how all of them are computed.

Here belong the table of characteristics and `compute`; the definitions belong in `momentum`, `risk` and
`liquidity`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import xarray as xr

from models.arrays import BoolArray, FloatArray
from models.characteristics import liquidity, momentum, risk
from models.characteristics.fields import WEEK, Fields, Frequency, weekly_returns
from models.windows import window_count
from schemas.errors import ConfigError, DataError

INPUTS = ("returns", "close", "high", "low", "volume", "shares")
_SUSPECTED = ("returns", "close", "high", "low")  # what a flag of a row speaks of
_CHUNK = 64  # tickers at once: what keeps temporaries in the cache, and memory small
_STEPS, _LARGEST_WEEK = 2.0**36, 2048.0  # of 32,768 tickers the sum fits into 63 bits


@dataclass(frozen=True)
class Characteristic:
    """One characteristic: a pure function of fields, and what it needs.

    Attributes
    ----------
    name : str
        Short name of the literature.
    inputs : tuple[str, ...]
        Fields that must exist.
    months : int
        How many months of sessions, up to and including t, enter the value at t; 0 if only t itself does.
    function : Callable
        `Fields` to (date, ticker) float64, NaN where there are too few observations.
    daily_only : bool
        Whether it needs sessions within the month.
    """

    name: str
    inputs: tuple[str, ...]
    months: int
    function: Callable[[Fields], FloatArray]
    daily_only: bool = False


_ALL = (
    Characteristic("mom1m", ("returns",), 1, momentum.mom1m),
    Characteristic("mom6m", ("returns",), 6, momentum.mom6m),
    Characteristic("mom12m", ("returns",), 12, momentum.mom12m),
    Characteristic("mom36m", ("returns",), 36, momentum.mom36m),
    Characteristic("chmom", ("returns",), 12, momentum.chmom),
    Characteristic("maxret", ("returns",), 1, risk.maxret, daily_only=True),
    Characteristic("retvol", ("returns",), 1, risk.retvol, daily_only=True),
    Characteristic("beta", ("returns",), 36, risk.beta, daily_only=True),
    Characteristic("betasq", ("returns",), 36, risk.betasq, daily_only=True),
    Characteristic("idiovol", ("returns",), 36, risk.idiovol, daily_only=True),
    Characteristic("pricedelay", ("returns",), 37, risk.pricedelay, daily_only=True),
    Characteristic("dolvol", ("close", "volume"), 2, liquidity.dolvol),
    Characteristic("std_dolvol", ("close", "volume"), 1, liquidity.std_dolvol, daily_only=True),
    Characteristic("ill", ("returns", "close", "volume"), 1, liquidity.ill, daily_only=True),
    Characteristic("baspread", ("high", "low"), 1, liquidity.baspread, daily_only=True),
    Characteristic("mvel1", ("close", "shares"), 0, liquidity.mvel1),
    Characteristic("turn", ("volume", "shares"), 3, liquidity.turn),
    Characteristic("std_turn", ("volume", "shares"), 1, liquidity.std_turn, daily_only=True),
    Characteristic("zerotrade", ("volume", "shares"), 1, liquidity.zerotrade, daily_only=True),
)
CHARACTERISTICS: MappingProxyType[str, Characteristic] = MappingProxyType({item.name: item for item in _ALL})


class MarketWeeks:
    """The market that regressions on it see: gone through some tickers at a time.

    Sums are exact, of returns to the nearest 2^-36: they are the same in whatever order and blocks tickers come, and a
    ticker that joins later moves no bit of what was before.

    Parameters
    ----------
    dates : int
        Dates of every block.
    """

    def __init__(self, dates: int) -> None:
        self._total, self._count = np.zeros(dates, dtype=np.int64), np.zeros(dates, dtype=np.int64)

    def add(self, returns: xr.DataArray, suspected: xr.DataArray | None = None) -> None:
        """Take in tickers: their returns (date, ticker), and where a check suspects them; such a week is of no stock's.

        A weekly return of more than 2048 counts as that many.
        """
        for start in range(0, returns.sizes["ticker"], _CHUNK):
            span = slice(start, start + _CHUNK)
            values = _read(returns, span)
            if suspected is not None:
                values[_flags(suspected, span)] = np.nan
            weekly = weekly_returns(values)
            known = np.isfinite(weekly)
            steps = np.rint(np.minimum(np.where(known, weekly, 0.0), _LARGEST_WEEK) * _STEPS)
            self._total += steps.astype(np.int64).sum(axis=1)
            self._count += known.sum(axis=1)

    @property
    def mean(self) -> FloatArray:
        """Equal-weighted mean over all tickers of the weekly returns that end at each date, (date, 1); NaN of none."""
        mean = self._total / _STEPS / np.maximum(self._count, 1)
        return np.where(self._count > 0, mean, np.nan)[:, np.newaxis]


def needs_market(names: Sequence[str] | None, frequency: Frequency | str = Frequency.DAILY) -> bool:
    """Whether any of these characteristics (all, if left out) looks at the market."""
    if Frequency(frequency) is not Frequency.DAILY:
        return False
    wanted = CHARACTERISTICS.values() if names is None else map(_named, names)
    return any(item.months >= 36 and item.daily_only for item in wanted)


def available(fields: xr.Dataset, frequency: Frequency | str = Frequency.DAILY) -> list[str]:
    """Names of the characteristics that these fields allow at this frequency, in the registry's order."""
    return [item.name for item in _ALL if _missing(item, fields, Frequency(frequency)) is None]


def lookback(names: Sequence[str], frequency: Frequency | str = Frequency.DAILY) -> int:
    """How many sessions, up to and including t, are enough to compute all of these at t.

    Values computed from that much history are, bit for bit, those computed from all of it.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    return max((_named(name).months * Frequency(frequency).month for name in names), default=0) or 1


def compute(
    fields: xr.Dataset,
    names: Sequence[str] | None = None,
    frequency: Frequency | str = Frequency.DAILY,
    *,
    suspected: xr.DataArray | None = None,
    market: FloatArray | None = None,
) -> xr.DataArray:
    """Compute characteristics from prices, returns and volumes.

    The return and the prices of a suspected row count as missing, in the stock's own windows and in the market: what
    they say moves nothing, neither of this stock nor of another. A window then holds the rows that are left, and is NaN
    where they are too few. Volumes and shares stay: a flag does not speak of them.

    Parameters
    ----------
    fields : xarray.Dataset
        ``returns`` (date, ticker): simple total returns per period; optionally ``close``, ``high``, ``low``,
        ``volume`` (shares traded per period) and ``shares`` (outstanding), on every session of one calendar.
    names : sequence of str, optional
        Which ones, in which order. Default: all that are `available`.
    frequency : Frequency or str
        "daily" (21 sessions a month, 5 a week) or "monthly".
    suspected : xarray.DataArray, optional
        (date, ticker) bool on the axes of ``fields``: rows that a check suspects. Default: none.
    market : numpy.ndarray, optional
        (date, 1): `MarketWeeks.mean` of the whole market. Default: ``fields`` are all of it.

    Returns
    -------
    xarray.DataArray
        (date, ticker, char) float32. The value at t is known at the close of t and uses nothing later; NaN
        where observations are too few, and where the stock has had no return, not even a suspected one, for a week
        (monthly: in the month itself).

    Raises
    ------
    DataError
        If an input of a characteristic asked for is absent, or it needs daily data and there are none.
    ConfigError
        If a name or the frequency is unknown.
    """
    frequency = Frequency(frequency)
    if "returns" not in fields:
        raise DataError("Characteristics need the field 'returns', which is absent.")
    wanted = [_named(name) for name in (available(fields, frequency) if names is None else names)]
    for item in wanted:
        reason = _missing(item, fields, frequency)
        if reason is not None:
            raise DataError(f"Characteristic '{item.name}' needs {reason}, which is absent; add it or leave it out.")
    values = np.full((fields.sizes["date"], fields.sizes["ticker"], len(wanted)), np.nan, dtype=np.float32)
    inputs = {"returns", *(name for item in wanted for name in item.inputs)}
    if market is None:
        weeks = MarketWeeks(fields.sizes["date"])
        if needs_market(names, frequency):
            weeks.add(fields["returns"], suspected)
        market = weeks.mean
    for span in _chunks(fields):
        arrays = {name: _read(fields[name], span) for name in inputs}
        traded = arrays["returns"]
        if suspected is not None:
            doubted = _flags(suspected, span)
            traded = np.where(doubted, 0.0, traded)  # a return there was, whatever it was
            arrays |= {name: np.where(doubted, np.nan, arrays[name]) for name in _SUSPECTED if name in arrays}
        data = Fields(arrays, frequency.month, market)
        live = window_count(traded, WEEK if frequency is Frequency.DAILY else 1) > 0
        for position, item in enumerate(wanted):
            result = item.function(data)
            values[:, span, position] = np.where(live & np.isfinite(result), result, np.nan)
    coords = {"date": fields["date"], "ticker": fields["ticker"], "char": [item.name for item in wanted]}
    return xr.DataArray(values, dims=("date", "ticker", "char"), coords=coords, name="characteristics")


def _named(name: str) -> Characteristic:
    if name not in CHARACTERISTICS:
        raise ConfigError(f"Unknown characteristic '{name}'; choose from {', '.join(CHARACTERISTICS)}.")
    return CHARACTERISTICS[name]


def _missing(item: Characteristic, fields: xr.Dataset, frequency: Frequency) -> str | None:
    if item.daily_only and frequency is not Frequency.DAILY:
        return "daily data"
    return next((f"the field '{name}'" for name in item.inputs if name not in fields), None)


def _chunks(fields: xr.Dataset) -> Iterator[slice]:
    for start in range(0, fields.sizes["ticker"], _CHUNK):
        yield slice(start, start + _CHUNK)


def _read(field: xr.DataArray, span: slice) -> npt.NDArray[np.float64]:
    values = field.isel(ticker=span).transpose("date", "ticker").values.astype(np.float64, order="C")
    values[~np.isfinite(values)] = np.nan
    return values


def _flags(flags: xr.DataArray, span: slice) -> BoolArray:
    found: BoolArray = flags.isel(ticker=span).transpose("date", "ticker").values.astype(np.bool_)
    return found
