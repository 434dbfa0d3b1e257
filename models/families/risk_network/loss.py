"""How far the variances that loadings forecast are from what portfolios met afterwards, with its gradient in them.

Here belong the covariance of one span of dates, the portfolios of the next one, and the loss. The variance of
residuals, the network and its descent are `models.families.profiled`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch

from models.families.profiled import ProfiledLoss, ProfiledRows, date_moments
from models.panel import Panel

CLASSES = ("stocks", "market", "long_only", "long_short", "sorts", "minimum_variance")
"""Kinds of portfolios whose losses are averaged with equal weights."""

_SHARED_DATES = 20.0  # of the mean variance of residuals, beside the dates of a stock's own
_LEAST = 1e-12  # specific variance, in units of the mean squared return
_VALIDATION_SEED = 0


@dataclass(frozen=True, eq=False)
class RiskRows(ProfiledRows):
    """Rows as of `ProfiledRows`, and whose they are.

    Attributes
    ----------
    tickers : torch.Tensor
        (row,) position of the stock.
    n_tickers : int
    """

    tickers: torch.Tensor
    n_tickers: int

    @classmethod
    def of(cls, learning: Panel, stopping: Panel) -> Self:
        """Flatten two panels of the same stocks, the second after the first."""
        rows = ProfiledRows.of(learning, stopping)
        masks = [torch.from_numpy(part.mask.values) for part in (learning, stopping)]
        tickers = torch.cat([mask.nonzero()[:, 1] for mask in masks])
        return cls(**vars(rows), tickers=tickers, n_tickers=len(learning.tickers))


@dataclass(frozen=True, eq=False)
class Section:
    """Rows of consecutive dates.

    Attributes
    ----------
    loadings : torch.Tensor
        (row, factor) float64 G, with its gradient.
    returns : torch.Tensor
        (row,) float64.
    characteristics : torch.Tensor
        (row, char) by which portfolios are sorted.
    tickers, date : torch.Tensor
        (row,) position of the stock, and of the date in the section, ascending.
    n_dates : int
    """

    loadings: torch.Tensor
    returns: torch.Tensor
    characteristics: torch.Tensor
    tickers: torch.Tensor
    date: torch.Tensor
    n_dates: int

    def between(self, first: int, last: int) -> Section:
        """Return the rows of the dates from ``first`` to before ``last``."""
        rows = slice(*torch.searchsorted(self.date, torch.tensor([first, last])).tolist())
        return Section(
            self.loadings[rows],
            self.returns[rows],
            self.characteristics[rows],
            self.tickers[rows],
            self.date[rows] - first,
            last - first,
        )

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add (row, ...) up to (date, ...)."""
        return values.new_zeros((self.n_dates, *values.shape[1:])).index_add(0, self.date, values)


def covariance(section: Section, n_tickers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate Omega and D on the dates of a section.

    Omega is the mean of f f' with f[t] = (G'G)^-1 G'r. The specific variance of a stock is the mean of its own squared
    residuals and, as if of twenty dates more, of those of all stocks.

    Returns
    -------
    omega, specific : torch.Tensor
        (factor, factor) and (ticker,), with gradients in the loadings.
    """
    gram, moment = date_moments(section.loadings, section.returns, section.date, section.n_dates)
    factors = torch.linalg.solve(gram, moment)
    squares = (section.returns - torch.linalg.vecdot(section.loadings, factors[section.date])).square()
    own = squares.new_zeros(n_tickers).index_add(0, section.tickers, squares)
    count = torch.bincount(section.tickers, minlength=n_tickers)
    specific = (own + _SHARED_DATES * squares.mean()) / (count + _SHARED_DATES)
    return factors.T @ factors / section.n_dates, specific.clamp_min(_LEAST)


def minimum_variance(section: Section, omega: torch.Tensor, specific: torch.Tensor) -> torch.Tensor:
    """Weights (row,) of S^-1 1 / (1'S^-1 1) at each date, with S = G Omega G' + D and specific variances (row,).

    By Woodbury's identity S^-1 1 = D^-1 (1 - G (I + Omega G'D^-1 G)^-1 Omega G'D^-1 1).
    """
    scaled = section.loadings / specific[:, None]
    inner = section.sums(scaled[:, :, None] * section.loadings[:, None, :])
    pull = torch.linalg.solve(torch.eye(len(omega), dtype=omega.dtype) + omega @ inner, section.sums(scaled) @ omega)
    weights: torch.Tensor = 1.0 / specific - torch.linalg.vecdot(scaled, pull[section.date])
    return weights / section.sums(weights)[section.date]


def trial_weights(section: Section, n_portfolios: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Portfolios (row, portfolio) that know nothing of a covariance, in absolute weights that sum to 1.

    The market is equally weighted. Weights of random ones are exponential (long only) or normal (long-short). Sorts are
    linear in a characteristic drawn at random, or in the product of two, less their mean.
    """
    chars = section.characteristics.double()
    varying = (chars.amax(dim=0) > chars.amin(dim=0)).nonzero()[:, 0]
    chars = chars[:, varying] if len(varying) else torch.zeros_like(chars[:, :1])
    n_rows, n_chars = chars.shape
    shape = (n_rows, n_portfolios)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    normal = torch.randn(shape, dtype=torch.float64, generator=generator)
    one, other = torch.randint(n_chars, (2, n_portfolios), generator=generator)
    sorted_by = chars[:, one] * torch.where(one == other, 1.0, chars[:, other])
    count = section.sums(torch.ones(n_rows, 1, dtype=torch.float64))
    sorts = sorted_by - (section.sums(sorted_by) / count)[section.date]
    draws = {
        "market": torch.ones(n_rows, 1, dtype=torch.float64),
        "long_only": -torch.log1p(-uniform),
        "long_short": normal,
        "sorts": sorts,
    }
    return {name: weights / _positive(section.sums(weights.abs()))[section.date] for name, weights in draws.items()}


def portfolio_variance(
    section: Section, weights: torch.Tensor, omega: torch.Tensor, specific: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forecast and squared return (date, portfolio): w'G Omega G'w + w'Dw of weights (row, portfolio), and (w'r)^2."""
    exposures = section.sums(weights[:, :, None] * section.loadings[:, None, :])
    variance = ((exposures @ omega) * exposures).sum(dim=2) + section.sums(weights.square() * specific[:, None])
    return variance, section.sums(weights * section.returns[:, None]).square()


def qlike(variance: torch.Tensor, realised: torch.Tensor) -> torch.Tensor:
    """Mean of log s2 + r2 / s2, without portfolios that hold nothing.

    Patton (2011), Volatility forecast comparison using imperfect volatility proxies, Journal of Econometrics 160. Up to
    a constant it is twice the negative log-likelihood of normal returns.
    """
    held = variance > 0.0
    losses = variance[held].log() + realised[held] / variance[held]
    return losses.sum() / max(losses.numel(), 1)


def risk_losses(
    before: Section, after: Section, n_tickers: int, n_portfolios: int, generator: torch.Generator
) -> torch.Tensor:
    """Loss of each of `CLASSES`, with Omega and D of the dates before, and portfolios and returns of those after."""
    omega, by_ticker = covariance(before, n_tickers)
    specific = by_ticker[after.tickers]
    portfolios = trial_weights(after, n_portfolios, generator)
    portfolios["minimum_variance"] = minimum_variance(after, omega, specific)[:, None]
    weights = [portfolios[name] for name in CLASSES[1:]]
    variance, realised = portfolio_variance(after, torch.cat(weights, dim=1), omega, specific)
    sizes = [each.shape[1] for each in weights]
    of_stocks = ((after.loadings @ omega) * after.loadings).sum(dim=1) + specific
    pairs = [
        (of_stocks, after.returns.square()),
        *zip(torch.split(variance, sizes, 1), torch.split(realised, sizes, 1), strict=True),
    ]
    return torch.stack([qlike(*pair) for pair in pairs])


@dataclass(frozen=True, eq=False)
class RiskLoss(ProfiledLoss):
    """The variance of residuals, and ``weight`` times the mean of `risk_losses` on spans drawn at random.

    Attributes
    ----------
    rows : RiskRows
    weight : float
        Zero draws nothing: the loss is that of `ProfiledLoss`, to the bit.
    window, ahead : int
        Dates of which Omega and D are made, and dates after these whose returns are compared with them.
    n_portfolios : int
        Of each kind that is drawn.
    generator : torch.Generator
        Of spans and portfolios, so that minibatches are those of any other weight.
    """

    rows: RiskRows
    weight: float
    window: int
    ahead: int
    n_portfolios: int
    generator: torch.Generator = field(default_factory=torch.Generator)

    def further(self) -> torch.Tensor | None:
        """Return the weighted loss of one span among the dates to learn from."""
        if self.weight == 0.0:
            return None
        span = self.window + self.ahead
        first = int(torch.randint(self.rows.n_train - span + 1, (1,), generator=self.generator))
        section = self._span(first, first + span)
        before, after = section.between(0, self.window), section.between(self.window, span)
        return self.weight * self._losses(before, after, self.generator).mean()

    def validation_loss(self) -> float:
        """Leave-one-out squares over squares, and the weighted risk loss, on the dates on which it stops."""
        left = super().validation_loss()
        return left + self.weight * float(self.validation_risk().mean()) if self.weight else left

    def validation_risk(self) -> torch.Tensor:
        """Return the loss of each of `CLASSES` on the dates on which it stops, by Omega and D of the dates before each.

        Portfolios are the same at each call.
        """
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        found, count = torch.zeros(len(CLASSES), dtype=torch.float64), 0
        for first, last in self._validation_spans():
            section = self._span(first - self.window, last)
            before, after = section.between(0, self.window), section.between(self.window, section.n_dates)
            found += (last - first) * self._losses(before, after, generator)
            count += last - first
        return found / count

    def _validation_spans(self) -> Iterator[tuple[int, int]]:
        n_dates = len(self.rows.begins) - 1
        for first in range(self.rows.n_train, n_dates, self.ahead):
            yield first, min(first + self.ahead, n_dates)

    def _losses(self, before: Section, after: Section, generator: torch.Generator) -> torch.Tensor:
        return risk_losses(before, after, self.rows.n_tickers, self.n_portfolios, generator)

    def _span(self, first: int, last: int) -> Section:
        rows, date = self.rows.of_dates(torch.arange(first, last))
        return Section(
            self.network.beta(self.rows.characteristics[rows]).double(),
            self.rows.returns[rows],
            self.rows.characteristics[rows],
            self.rows.tickers[rows],
            date,
            last - first,
        )


def _positive(sums: torch.Tensor) -> torch.Tensor:
    return torch.where(sums > 0.0, sums, 1.0)
