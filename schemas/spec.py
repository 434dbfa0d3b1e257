"""The run spec: everything that decides a number, in one frozen document that YAML, Prefect and the CLI share.

Here belong the fields of a config file and the rules among them. Defaults here are part of the contract: a changed
default changes the digest of every spec that leaves it out. Folders, addresses and passwords belong in
`schemas.settings`; quality checks in `schemas.checks`; sources in `schemas.sources`; models in `schemas.families`; the
estimators of risk in `schemas.risk`; allocations in `schemas.allocation`. A config file is read by `storage.configs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.allocation import DeclaredAllocation
from schemas.base import Frozen, Name, nearest
from schemas.checks import CheckOverrides, SuspectedReturns
from schemas.errors import ConfigError
from schemas.families import AnyModel, ModelSpec, with_bases
from schemas.risk import RiskSpec
from schemas.sources import FactorSource, HoldingsSource, IndustrySource, LongPrices, MarketSource, WidePrices

Frequency = Literal["daily", "monthly"]
PERIODS_PER_YEAR: dict[str, int] = {"daily": 252, "monthly": 12}
_MOST = 1e12
"""Largest weight: far above any position in any currency, and far from where squares overflow."""
_SHOWN = 5
_KIND = "How the weights come about."
_NAME = "Name of the portfolio, by which its risk is published."


class _Portfolio(Frozen):
    """What every portfolio may have, however its weights come about."""

    benchmark: Name | None = Field(
        default=None,
        exclude_if=lambda name: name is None,  # a config without one has the names of versions that it always had
        description="Another portfolio of the config; beta to it and tracking error are published.",
    )


class EqualWeight(_Portfolio):
    """Equal weights over all covered stocks."""

    kind: Literal["equal_weight"] = Field(default="equal_weight", description=_KIND)
    name: Name = Field(default="equal_weight", description=_NAME)


class FixedWeights(_Portfolio):
    """Given weights, rescaled at each date over the covered stocks."""

    kind: Literal["fixed"] = Field(default="fixed", description=_KIND)
    name: Name = Field(description=_NAME)
    weights: dict[str, Annotated[float, Field(ge=-_MOST, le=_MOST)]] = Field(
        min_length=1, description="Weight of each ticker; the others have none."
    )


class LongShort(_Portfolio):
    """Equal-weighted long-short portfolio on a characteristic: long the top quantile, short the bottom one."""

    kind: Literal["long_short"] = Field(default="long_short", description=_KIND)
    name: Name = Field(description=_NAME)
    characteristic: str = Field(description="Characteristic of the cube to sort on.")
    quantile: float = Field(default=0.2, gt=0.0, le=0.5, description="Share of the stocks in each leg.")


class InverseVolatility(_Portfolio):
    """Weights proportional to one over the trailing volatility."""

    kind: Literal["inverse_volatility"] = Field(default="inverse_volatility", description=_KIND)
    name: Name = Field(default="inverse_volatility", description=_NAME)
    window: int = Field(default=63, ge=10, description="Trailing periods of the volatility.")
    floor: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="Least volatility of a stock that is held, as a share of the cross-section's median.",
    )


class ValueWeight(_Portfolio):
    """Weights proportional to market capitalisation, or to dollar volume where the data have no shares outstanding."""

    kind: Literal["value_weight"] = Field(default="value_weight", description=_KIND)
    name: Name = Field(default="value_weight", description=_NAME)
    value: Literal["market_cap", "dollar_volume"] = Field(
        default="market_cap", description="Close times shares outstanding, or close times volume."
    )
    window: int = Field(default=1, ge=1, description="Trailing periods over which the value is averaged.")


class DatedWeights(Frozen):
    """Weights that were allocated as of a date."""

    as_of: date = Field(description="Last date that the weights know; they are held from the close of the next date.")
    weights: dict[str, Annotated[float, Field(ge=-_MOST, le=_MOST)]] = Field(
        min_length=1, description="Weight of each ticker; the others have none."
    )


class _Rebalanced(_Portfolio):
    """Weights of dates, each held until the next; later ones may follow, those that are known stay."""

    rebalances: tuple[DatedWeights, ...] = Field(
        default=(), description="The weights, oldest first; leave it out: an ingest reads them."
    )

    @field_validator("rebalances")
    @classmethod
    def _in_order(cls, rebalances: tuple[DatedWeights, ...]) -> tuple[DatedWeights, ...]:
        if any(one.as_of >= other.as_of for one, other in pairwise(rebalances)):
            raise ValueError("the dates of rebalances must increase")
        return rebalances

    def continues(self, before: Self) -> bool:
        """Whether all weights that were known before are the same, whatever their tickers are called by now."""
        dated = [[(one.as_of, sorted(one.weights.values())) for one in item.rebalances] for item in (self, before)]
        return dated[0][: len(dated[1])] == dated[1]

    def continued(self, later: Self) -> Self:
        """Return this portfolio with the weights that another one has after its own."""
        return self.model_copy(update={"rebalances": self.rebalances + later.rebalances[len(self.rebalances) :]})


class AllocatedWeights(_Rebalanced):
    """Weights that `factorcube allocate` publishes under a name, each held until the next, rescaled as fixed ones are.

    Every ingest takes up what is published. From then on it is part of the recipe of the cube, which can be derived
    again without it.
    """

    kind: Literal["allocation"] = Field(default="allocation", description=_KIND)
    name: Name = Field(description="Name of the allocation, and of the portfolio.")


class Holdings(_Rebalanced):
    """What a book holds, from files or a query: held from the close of its date until the next.

    Between dates positions drift with their returns. Every ingest reads the source; from then on what it says is part
    of the recipe of the cube, which can be derived again without it.
    """

    kind: Literal["holdings"] = Field(default="holdings", description=_KIND)
    name: Name = Field(description=_NAME)
    source: HoldingsSource | None = Field(default=None, description="Where the holdings come from; with dates.")
    unit: Literal["weight", "shares"] = Field(
        default="weight", description="What `rebalances` hold; leave it out: an ingest takes it from the source."
    )
    rebalanced: bool = Field(
        default=False,
        description="Whether weights are brought back to those of the date every period; they drift if not.",
    )
    max_uncovered: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        description="Most of the gross weight, on a date of holdings, on tickers that the universe does not have or "
        "that cannot be held that date.",
    )

    @model_validator(mode="after")
    def _dated(self) -> Self:
        if self.source is None and not self.rebalances:
            raise ValueError("holdings need a `source`")
        if self.source is not None and self.source.date is None:
            raise ValueError("source.date: holdings of a config need a column of dates")
        return self

    def continues(self, before: Self) -> bool:
        """Whether what was held before is the same; a source may have moved, and the tolerance be another one."""
        read = self.rebalances and before.rebalances
        same = self.rebalanced == before.rebalanced and (self.unit == before.unit or not read)
        return same and super().continues(before)

    def continued(self, later: Self) -> Self:
        """Return these holdings with those that another one has after its own, and its tolerance."""
        return super().continued(later).model_copy(update={"max_uncovered": later.max_uncovered})


PortfolioSpec = Annotated[
    EqualWeight | FixedWeights | LongShort | InverseVolatility | ValueWeight | AllocatedWeights | Holdings,
    Field(discriminator="kind"),
]


class PanelSpec(Frozen):
    """How the panel is made from a cube: what a model sees."""

    characteristics: tuple[str, ...] | None = Field(
        default=None, description="Names to use; all of the cube if left out."
    )
    transform: Literal["rank", "standardise", "winsorise", "none"] = Field(
        default="rank", description="Cross-sectional transform: rank to [-1, 1], z-score, winsorised z-score, or none."
    )
    lag: int = Field(
        default=1, ge=1, description="Periods between knowing a characteristic and the return it explains."
    )
    constant: bool = Field(default=True, description="Add a characteristic that is 1 for every covered stock.")
    min_coverage: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Least share of characteristics a stock needs."
    )
    market_portfolio: Name | None = Field(
        default=None, description="Portfolio whose weights make the universe's own market; equal weights if left out."
    )
    start: date | None = Field(default=None, description="First date of the panel.")
    end: date | None = Field(default=None, description="Last date of the panel.")


class WalkForward(Frozen):
    """When models are fitted again. A fit made as of a date serves the dates after it, up to the next refit."""

    first: date = Field(
        description="First refit: models are fitted on data up to the last session not after this date."
    )
    every: Literal["month", "quarter", "year"] = Field(default="year", description="Refit at the end of each of these.")
    window: int | None = Field(default=None, ge=24, description="Periods a fit looks back on; expanding if left out.")


class GateSpec(Frozen):
    """What a version must satisfy to become `latest`; a version that fails is published but not promoted."""

    min_total_r2: float = Field(default=0.0, description="Least out-of-sample total R2.")
    max_bias_statistic: float = Field(default=2.0, gt=1.0, description="Largest mean bias statistic of the portfolios.")
    min_bias_statistic: float = Field(default=0.5, gt=0.0, lt=1.0, description="Smallest mean bias statistic.")
    window: int | None = Field(
        default=252, ge=12, description="Last held-out dates that champion and challenger are compared on; all if null."
    )
    max_total_r2_loss: float = Field(
        default=0.02, ge=0.0, description="Most out-of-sample total R2 that a challenger may lose against the champion."
    )
    max_qlike_loss: float = Field(
        default=0.05, ge=0.0, description="Most that its mean QLIKE over common portfolios may exceed the champion's."
    )
    significance: float | None = Field(
        default=0.01,
        gt=0.0,
        lt=0.5,
        description="Least one-sided Diebold-Mariano p-value of its QLIKE against the champion's; any if null.",
    )
    confidence: float | None = Field(
        default=0.99,
        gt=0.5,
        lt=1.0,
        description="Confidence of the model confidence set by QLIKE, champion beside it, that it must be in; "
        "not asked for if null.",
    )
    suspected_returns: SuspectedReturns = Field(
        default="counted",
        description="Whether returns that a check suspects count in bias statistics and QLIKE; refuted ones never do.",
    )
    max_coverage_loss: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Most of the returns the champion explains that it may not."
    )


class Recipe(Frozen):
    """How a cube is derived from its record: the part of a spec that every snapshot keeps.

    Portfolios are those of every config that has ingested into the universe; a name has one definition.
    """

    frequency: Frequency
    calendar: str
    currency: str
    known: Literal["at_date", "before_date"]
    adjust: Literal["splits"] | None
    characteristics: tuple[str, ...] | None
    portfolios: tuple[PortfolioSpec, ...]
    checks: CheckOverrides

    def beside(self, before: Recipe | None) -> Recipe:
        """Return this recipe with the portfolios that another config has defined before, which stay and come first.

        Raises
        ------
        ConfigError
            If the cube is of another frequency, calendar or currency, or a portfolio of that name is another one.
        """
        if before is None:
            return self
        for field in ("frequency", "calendar", "currency"):
            theirs, ours = getattr(before, field), getattr(self, field)
            if theirs != ours:
                raise ConfigError(f"the cube has {field} {theirs}, the config {ours}; give another `universe`")
        refuse_other_portfolios(before.portfolios, self.portfolios)
        known = {item.name for item in before.portfolios}
        added = tuple(item for item in self.portfolios if item.name not in known)
        mine = {item.name: item for item in self.portfolios}
        kept = tuple(_continued(item, mine.get(item.name, item)) for item in before.portfolios)
        return self.model_copy(update={"portfolios": (*kept, *added)})


def refuse_other_portfolios(known: Sequence[PortfolioSpec], asked: Sequence[PortfolioSpec]) -> None:
    """Raise `ConfigError` where a cube has a portfolio of the same name and another definition."""
    by_name = {item.name: item for item in known}
    for item in asked:
        other = by_name.get(item.name, item)
        if not _same(other, item):
            raise ConfigError(
                f"the cube has another portfolio '{item.name}': {_defined(other)}, not {_defined(item)}; give yours "
                f"another `name`, or let go of the old one with `factorcube portfolio remove UNIVERSE {item.name}`"
            )


def _same(one: PortfolioSpec, other: PortfolioSpec) -> bool:
    """Whether two definitions are of one portfolio: one with dates stays the same one while it gets later weights."""
    if isinstance(one, AllocatedWeights) and isinstance(other, AllocatedWeights):
        return one.continues(other) or other.continues(one)
    if isinstance(one, Holdings) and isinstance(other, Holdings):
        return one.continues(other) or other.continues(one)
    return one == other


def _continued(one: PortfolioSpec, other: PortfolioSpec) -> PortfolioSpec:
    """Return what a cube knows of a portfolio, and what a config of today adds to it."""
    if isinstance(one, AllocatedWeights) and isinstance(other, AllocatedWeights):
        return one.continued(other)
    if isinstance(one, Holdings) and isinstance(other, Holdings):
        return one.continued(other)
    return one


def _defined(item: PortfolioSpec) -> str:
    if isinstance(item, _Rebalanced):
        dates = [f"{one.as_of}" for one in item.rebalances]
        shown = ", ".join(dates) if len(dates) <= _SHOWN else f"{len(dates)} dates, {dates[0]} to {dates[-1]}"
        return f"{item.kind} as of {shown or 'no date yet'}"
    parts = item.model_dump(mode="json", exclude={"name", "kind"})
    return " ".join([item.kind, *(f"{name}={value}" for name, value in parts.items())])


class ReportSpec(Frozen):
    """What the report shows."""

    tickers: tuple[str, ...] = Field(
        default=(), max_length=8, description="Stocks whose loadings are drawn; the largest if empty."
    )
    portfolios: tuple[Name, ...] = Field(
        default=(),
        description="Portfolios whose risk can be looked at in the report; if empty the first ones, up to its size.",
    )


class RunSpec(Frozen):
    """One universe, from its source to its published models: a config file of ``factorcube run``."""

    universe: Name = Field(description="Name of the universe; its cube and its published models live under it.")
    frequency: Frequency = Field(default="daily", description="Length of a period.")
    calendar: str = Field(
        default="XNYS",
        pattern=r"^([A-Za-z0-9_-]+|24/5)$",
        description="Exchange calendar (ISO 10383, as exchange_calendars names them), or 'none' to take the dates as "
        "they come.",
    )
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="Currency of the prices (ISO 4217).")
    data: MarketSource = Field(description="Prices or returns of the stocks, and where they come from.")
    delivery: Literal["full", "increment"] = Field(
        default="full",
        description="full: from its first to its last date the source has all that there is, and what it no longer has "
        "is withdrawn. increment: its rows are added or restated, and all others stay.",
    )
    factors: tuple[FactorSource, ...] = Field(default=(), description="Observed factors and the risk-free rate.")
    industries: IndustrySource | None = Field(
        default=None, description="Industry of each stock, for models that have industries as factors."
    )
    characteristics: tuple[str, ...] | None = Field(
        default=None,
        description="Characteristics to compute from prices and volumes; all that the data allow if left out.",
    )
    portfolios: tuple[PortfolioSpec, ...] = Field(
        default=(EqualWeight(),), description="Portfolios whose risk is published and judged."
    )
    checks: CheckOverrides = Field(default=CheckOverrides(), description="Changes to the data-quality checks.")
    panel: PanelSpec = Field(default=PanelSpec(), description="How the panel is made from the cube.")
    models: tuple[AnyModel, ...] = Field(min_length=1, description="Models to fit, each published under its name.")
    walk_forward: WalkForward = Field(description="When models are fitted again.")
    risk: RiskSpec = Field(
        default=RiskSpec(),
        description="How the risk of every model is estimated. Monthly data are not calibrated unless asked.",
    )
    gate: GateSpec = Field(default=GateSpec(), description="What a version must satisfy to become latest.")
    allocations: tuple[DeclaredAllocation, ...] = Field(
        default=(), description="Weights that every run makes by the champions of its models, and publishes."
    )
    report: ReportSpec = Field(default=ReportSpec(), description="What the report of a run shows.")

    @model_validator(mode="before")
    @classmethod
    def _calibrated_by_the_day(cls, given: Any) -> Any:
        """Leave calibration out of monthly configs that do not ask for it: its defaults are in days."""
        if not isinstance(given, Mapping) or given.get("frequency") != "monthly":
            return given
        risk = given.get("risk", {})
        return {**given, "risk": {"calibration": None, **risk}} if isinstance(risk, Mapping) else given

    @property
    def periods_per_year(self) -> int:
        """Periods of one year at this frequency: 252 or 12."""
        return PERIODS_PER_YEAR[self.frequency]

    @property
    def recipe(self) -> Recipe:
        """How a cube is derived, as far as this config says."""
        return Recipe(
            frequency=self.frequency,
            calendar=self.calendar,
            currency=self.currency,
            known=getattr(self.data, "known", "at_date"),
            adjust="splits" if self.adjusts_splits else None,
            characteristics=self.characteristics,
            portfolios=tuple(item.model_copy(update={"benchmark": None}) for item in self.portfolios),
            checks=self.checks,
        )

    @property
    def benchmarks(self) -> dict[str, str]:
        """Names of the portfolios that have a benchmark, and of that."""
        return {item.name: item.benchmark for item in self.portfolios if item.benchmark is not None}

    @property
    def sources(self) -> tuple[MarketSource | FactorSource | IndustrySource, ...]:
        """Everything that an ingest reads."""
        return (self.data, *self.factors, *([] if self.industries is None else [self.industries]))

    @property
    def adjusts_splits(self) -> bool:
        """Whether an ingest adjusts prices for splits."""
        return isinstance(self.data, LongPrices | WidePrices) and self.data.adjust == "splits"

    def models_named(self, names: Sequence[str] | None) -> list[ModelSpec]:
        """Return the models of these names, in the order of the spec; all of them if no names are given.

        Raises
        ------
        ConfigError
            If there is no model of such a name.
        """
        for name in self.report.portfolios:
            declared = [item.name for item in self.portfolios]
            if name not in declared:
                raise ValueError(f"report.portfolios names '{name}', which is not declared; {nearest(name, declared)}")
        known = [model.name for model in self.models]
        for name in names or ():
            if name not in known:
                raise ConfigError(f"{self.universe} has no model '{name}'; {nearest(name, known)}")
        return [model for model in self.models if names is None or model.name in names]

    @field_validator("calendar", mode="before")
    @classmethod
    def _weekends_off(cls, calendar: Any) -> Any:
        if calendar == "24/7":
            raise ValueError(
                "365 sessions a year are not offered: daily numbers are annualised by 252; leave weekends out, and set "
                "24/5 or none"
            )
        return calendar

    @field_validator("models", "portfolios", "allocations")
    @classmethod
    def _unique_names(cls, items: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [item.name for item in items]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"the name {', '.join(doubled)} is given twice; set a different `name` for each")
        return items

    @model_validator(mode="after")
    def _portfolios_there(self) -> Self:
        portfolios = [item.name for item in self.portfolios]
        if self.panel.market_portfolio and self.panel.market_portfolio not in portfolios:
            raise ValueError(f"panel.market_portfolio '{self.panel.market_portfolio}' is not one of the portfolios")
        for name, benchmark in self.benchmarks.items():
            if benchmark == name:
                raise ValueError(f"portfolio '{name}' is its own `benchmark`; name another one, or leave it out")
            if benchmark not in portfolios:
                raise ValueError(
                    f"portfolio '{name}' has a benchmark '{benchmark}' that is not one of the portfolios; "
                    f"{nearest(benchmark, portfolios)}"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = [model.name for model in self.models]
        for one in self.allocations:
            if one.model not in known:
                hint = nearest(one.model, known)
                raise ValueError(f"allocation '{one.name}' goes by a model '{one.model}' that is not there; {hint}")
        for item in self.portfolios if self.adjusts_splits else ():
            if isinstance(item, Holdings) and item.source is not None and item.source.shares is not None:
                raise ValueError(
                    f"portfolio '{item.name}': shares are priced at closes as they were paid; give a column of values, "
                    "or leave data.adjust out"
                )
        if self.frequency != "daily" and self.adjusts_splits:
            raise ValueError("data.adjust: splits are told from other moves in daily prices only; leave it out")
        try:
            with_bases(self.models, self.models)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def resolved(self, folder: Path) -> Self:
        """Return the same spec with relative paths of files taken from a folder."""
        return self.model_copy(
            update={
                "data": self.data.resolved(folder),
                "factors": tuple(source.resolved(folder) for source in self.factors),
                "industries": None if self.industries is None else self.industries.resolved(folder),
                "portfolios": tuple(_resolved(item, folder) for item in self.portfolios),
            }
        )


def _resolved(item: PortfolioSpec, folder: Path) -> PortfolioSpec:
    if not isinstance(item, Holdings) or item.source is None:
        return item
    return item.model_copy(update={"source": item.source.resolved(folder)})
