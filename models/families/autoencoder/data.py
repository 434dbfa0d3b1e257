"""What the networks are trained on: the panel's estimation universe as flat rows, and the managed portfolios.

Here belong the flattening, the scaling, and the timing of what the factor network sees. Learning belongs in
`training`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from models.arrays import BoolArray, FloatArray
from models.panel import Panel
from models.panel.assembly import CONSTANT
from models.statistics.gram import gram_statistics, managed_portfolios
from schemas.errors import ModelError

Target = Literal["contemporaneous", "one_ahead"]
Factors = Literal["portfolios", "returns", "profiled"]


@dataclass(frozen=True)
class Scales:
    """Units that are taken out before training and folded back after it: no parameter depends on them.

    Attributes
    ----------
    char_mean, char_scale : numpy.ndarray
        (char,) mean and standard deviation over the training rows (1 where a characteristic does not vary).
    portfolios : numpy.ndarray
        (portfolio,) root mean square over the training dates.
    returns : float
        Root mean square over the training rows.
    """

    char_mean: FloatArray
    char_scale: FloatArray
    portfolios: FloatArray
    returns: float


@dataclass(frozen=True)
class TrainingData:
    """Rows of the estimation universe in date order, scaled; the last dates are the validation span.

    Attributes
    ----------
    characteristics : torch.Tensor
        (row, char) float32.
    returns : torch.Tensor
        (row,) float32.
    dates : torch.Tensor
        (row,) position of the row's date in ``portfolios``.
    portfolios : torch.Tensor
        (date, portfolio) float32: what the factor network sees at each date, managed portfolios or single stocks; none
        if factors are profiled.
    n_train : int
        Rows before the validation span.
    scales : Scales
        How to return to decimals.
    """

    characteristics: torch.Tensor
    returns: torch.Tensor
    dates: torch.Tensor
    portfolios: torch.Tensor
    n_train: int
    scales: Scales

    @classmethod
    def of(
        cls,
        panel: Panel,
        *,
        target: Target,
        validation_fraction: float,
        n_factors: int,
        factors: Factors = "portfolios",
    ) -> TrainingData:
        """Flatten a panel; see the class. ModelError if it cannot carry the factors or a validation span.

        Profiled factors need no portfolios, and dates with more stocks than factors.
        """
        inputs: FloatArray
        if factors == "profiled":
            inputs = np.empty((len(panel.dates), 0))
            known = panel.mask.values.sum(axis=1) > n_factors
        else:
            inputs = factor_inputs(panel, panel.chars, target, traded(panel) if factors == "returns" else None)
            known = np.isfinite(inputs).all(axis=1)
            if not panel.chars or not 1 <= n_factors <= inputs.shape[1]:
                seen = "traded stocks" if factors == "returns" else "managed portfolios"
                raise ModelError(
                    f"n_factors={n_factors}, but {len(panel.chars)} characteristics and {inputs.shape[1]} {seen} carry "
                    f"1 to {inputs.shape[1]} factors; change it, or add characteristics."
                )
        characteristics, returns, dates = flat_rows(panel, panel.mask.values & known[:, None])
        n_train = _split(dates, validation_fraction, n_factors)
        train_dates = np.unique(dates[:n_train])
        mean, std = moments(characteristics[:n_train])
        scales = Scales(
            char_mean=mean,
            char_scale=std,
            portfolios=_positive(np.sqrt(np.square(inputs[train_dates]).mean(axis=0))),
            returns=float(np.sqrt(np.square(returns[:n_train]).mean())) or 1.0,
        )
        characteristics -= scales.char_mean.astype(np.float32)
        characteristics /= scales.char_scale.astype(np.float32)
        return cls(
            characteristics=torch.from_numpy(characteristics),
            returns=torch.from_numpy((returns / scales.returns).astype(np.float32)),
            dates=torch.from_numpy(dates),
            portfolios=torch.from_numpy((inputs / scales.portfolios).astype(np.float32)),
            n_train=n_train,
            scales=scales,
        )


def portfolio_returns(panel: Panel, chars: Sequence[str]) -> FloatArray:
    """Return x[t] = (Z'Z)^-1 Z'r as (date, portfolio) float64; NaN on dates without an estimation universe.

    Gu, Kelly and Xiu (2021), eq. 16. Z has a leading column of ones unless the panel has such a
    characteristic, so that the market is among the portfolios.
    """
    return managed_portfolios(gram_statistics(panel, chars=chars, intercept=CONSTANT not in chars))


def traded(panel: Panel) -> list[str]:
    """Return the tickers with a return in the estimation universe, in the order of their names."""
    return sorted(np.asarray(panel.tickers)[panel.mask.values.any(axis=0)].tolist())


def stock_returns(panel: Panel, tickers: Sequence[str]) -> FloatArray:
    """Return the returns of some stocks as (date, ticker) float64, 0 where one has none in the estimation universe.

    NaN on dates without an estimation universe.
    """
    places = pd.Index(panel.tickers).get_indexer(pd.Index(tickers))
    mask = panel.mask.values
    values = np.where(mask, panel.returns.values, 0.0).astype(np.float64)
    values = np.where(places >= 0, values[:, places], 0.0)
    values[~mask.any(axis=1)] = np.nan
    return values


def factor_inputs(
    panel: Panel, chars: Sequence[str], target: Target, tickers: Sequence[str] | None = None
) -> FloatArray:
    """Return what the factor network sees: x[t], or x[t-1] (NaN on the first date) if one_ahead.

    x are the managed portfolios, or the returns of the tickers where there are any given.
    """
    seen = portfolio_returns(panel, chars) if tickers is None else stock_returns(panel, tickers)
    if target == "one_ahead":
        seen = np.vstack([np.full_like(seen[:1], np.nan), seen[:-1]])
    return seen


def flat_rows(panel: Panel, mask: BoolArray) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Return the cells of a mask (date, ticker) as rows in order of dates.

    Returns
    -------
    characteristics, returns, dates : numpy.ndarray
        (row, char) float32, (row,) float64 and (row,) position of the row's date in the panel.
    """
    dates = np.repeat(np.arange(len(mask)), mask.sum(axis=1))
    characteristics = np.empty((len(dates), len(panel.chars)), dtype=np.float32)
    returns = np.empty(len(dates), dtype=np.float64)
    row = date = 0
    for block in panel.blocks():
        inside = mask[date : date + len(block.dates)]
        end = row + int(inside.sum())
        characteristics[row:end] = block.characteristics.values[inside]
        returns[row:end] = block.returns.values[inside]
        row, date = end, date + len(block.dates)
    return characteristics, returns, dates


def _split(dates: npt.NDArray[np.int64], fraction: float, n_factors: int) -> int:
    """Return the number of rows before the last ``fraction`` of the dates."""
    known = np.unique(dates)
    n_validation = max(1, math.ceil(fraction * len(known)))
    n_training = len(known) - n_validation
    if n_training <= n_factors:
        raise ModelError(
            f"{len(known)} dates with returns leave {max(n_training, 0)} to train {n_factors} factors on, "
            f"beside {n_validation} for validation (validation_fraction={fraction}): give a longer panel."
        )
    return int(np.searchsorted(dates, known[n_training]))


def moments(characteristics: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation (char,) over (row, char), 1 for one that does not vary."""
    columns = [characteristics[:, k].std(dtype=np.float64) for k in range(characteristics.shape[1])]
    return characteristics.mean(axis=0, dtype=np.float64), _positive(np.asarray(columns))


def _positive(scale: FloatArray) -> FloatArray:
    return np.where(scale > 0.0, scale, 1.0)
