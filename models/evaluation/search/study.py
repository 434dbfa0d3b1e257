"""A search of parameters by trials on folds of dates, within a budget, by Optuna's sampler and pruner.

Here belong the order of trials, what is fitted where, and the result. What a space is belongs in `space`, the folds in
`models.families.penalised.cross_validation`, scorers in `models.evaluation.selection`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd

from models.arrays import IntArray
from models.evaluation.search.space import Dimension, Space, dimensions
from models.evaluation.selection import predictive_r2_scorer
from models.families.base import FactorModel
from models.families.penalised.cross_validation import BlockedFolds
from models.panel import Panel
from schemas.errors import ConfigError, FactorcubeError, ModelError

if TYPE_CHECKING:
    import optuna

_MOST_REPEATS = 100
"""Proposals of what was tried before after which there is taken to be nothing else."""

Scoring = Callable[[FactorModel, Panel], float]
"""Takes a fitted model and a panel of other dates, and returns a number that is higher for a better model."""


class Splitter(Protocol):
    """What splits the dates of a panel into those to fit and those to score, such as `BlockedFolds`."""

    def split(self, X: Panel, /) -> Iterable[tuple[IntArray, IntArray]]:
        """Give positions of training and test dates, fold by fold."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search has tried, and what it chose.

    Attributes
    ----------
    trials : pandas.DataFrame
        By ``trial``, in the order in which they were asked for: a column for each parameter, ``score`` (mean over the
        folds that were scored), ``folds`` (how many these are), ``state`` (``complete``, ``pruned`` or ``failed``) and
        ``reason`` (why it failed; empty otherwise).
    parameters : dict[str, Any]
        Those of the complete trial with the highest score, the first of equals.
    score : float
        That score. It is the best of many, and so higher than what the model will have on later dates.
    model : FactorModel
        With these parameters, fitted to the whole panel.

    Examples
    --------
    >>> from models import PCA, search
    >>> from models.panel import example_panel
    >>> found = search(PCA(), {"n_factors": [1, 2]}, example_panel(), budget=3, seed=0)
    >>> sorted(found.trials["n_factors"])
    [1, 2]
    """

    trials: pd.DataFrame
    parameters: dict[str, Any]
    score: float
    model: FactorModel


def search(
    model: FactorModel,
    space: Space,
    panel: Panel,
    *,
    budget: int,
    seed: int,
    seconds: float | None = None,
    scoring: Scoring = predictive_r2_scorer,
    cv: Splitter | None = None,
    prune: bool = True,
    batch: int = 4,
    executor: Executor | None = None,
) -> SearchResult:
    """Search parameters of a model on folds of a panel, and fit the best to all of it.

    Parameters are proposed by a tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl 2011, Algorithms
    for hyper-parameter optimization), of Optuna. A trial is fitted and scored fold by fold. After each fold but the
    last it ends if its mean so far is below the median of the complete trials at that fold, once there are five.
    Nothing is tried twice: a space that has no more to try ends the search before its budget.

    Nothing but the panel is looked at: give it the training dates alone, and judge the model on those after them.

    A model that is fitted on others, which `on` has given it, is fitted in each fold on copies of these that are fitted
    to the dates of the fold.

    Parameters
    ----------
    model : FactorModel
        With the parameters that are not searched; it stays as it is.
    space : mapping
        By parameter a ``range`` of whole numbers, an interval ``(low, high)``, ``(low, high, "log")`` for one in which
        logarithms are even, or a list of choices. An interval is of whole numbers where the parameter is one.
    panel : Panel
        All that may be learnt from.
    budget : int
        Most trials.
    seed : int
        Of the proposals. The same seed gives the same trials, whatever the executor.
    seconds : float, optional
        After which no batch of trials begins. How many there are then depends on the machine, so that the result can
        not be made again. Default: the number of trials decides alone.
    scoring : callable
        Of a fitted model and a panel; higher is better.
    cv : splitter, optional
        Gives the dates to fit and to score of each fold. Default: ``BlockedFolds()``.
    prune : bool
        Whether trials may end before their last fold.
    batch : int
        Trials that are proposed together, from what the batches before have shown: as many as may run side by side.
    executor : concurrent.futures.Executor, optional
        Where the fits of a batch run, such as a process pool, or ``get_executor()`` of a Dask client. Each fit takes
        the panel with it. Default: here, one after the other.

    Raises
    ------
    ConfigError
        If the space names an unknown parameter, is empty or has values that the model refuses; if budget, batch or
        seconds are not above zero, or no panel is given; or if the package optuna is not installed.
    ModelError
        If no trial could be fitted on all folds.

    Examples
    --------
    >>> from models import IPCA, BlockedFolds, search, total_r2_scorer
    >>> from models.panel import example_panel
    >>> space, folds = {"n_factors": range(1, 3)}, BlockedFolds(n_folds=3)
    >>> found = search(IPCA(), space, example_panel(), budget=4, seed=0, scoring=total_r2_scorer, cv=folds)
    >>> found.parameters
    {'n_factors': 2}
    """
    _check(panel, budget=budget, batch=batch, seconds=seconds)
    begun = time.monotonic()
    with _quiet_optuna():
        asking = _Asking(_study(seed, prune=prune), dimensions(model, space))
        folds = _Folds(model, panel, scoring, cv or BlockedFolds(), executor)
        trials: list[_Trial] = []
        while asked := asking.ask(min(batch, budget - len(trials))):
            folds.follow(asked)
            asking.tell(asked)
            trials += asked
            if seconds is not None and time.monotonic() - begun >= seconds:
                break
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        raise ModelError(f"None of {len(trials)} trials could be fitted on all folds: {trials[0].reason}")
    best = max(complete, key=lambda trial: trial.mean)
    return SearchResult(_table(trials), best.parameters, best.mean, _fit_anew(model, best.parameters, panel))


def _check(panel: Any, **numbers: float | None) -> None:
    if not isinstance(panel, Panel):
        raise ConfigError(f"search takes a models.Panel to learn from, not a {type(panel).__name__}.")
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ConfigError(f"A search needs {name} above zero, not {number}.")


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging each trial, and leave its logging as it was."""
    try:
        from optuna import logging
    except ImportError:
        raise ConfigError("Optuna is not installed here; install the package optuna.") from None
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _study(seed: int, *, prune: bool) -> optuna.Study:
    import optuna

    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5) if prune else optuna.pruners.NopPruner(),
    )


@dataclass
class _Trial:
    """One set of parameters on its way through the folds."""

    of_study: optuna.trial.Trial
    parameters: dict[str, Any]
    scores: list[float] = field(default_factory=list)
    state: Literal["running", "complete", "pruned", "failed"] = "running"
    reason: str = ""

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores)) if self.scores else float("nan")

    def follow(self, outcome: float | str, *, last: bool) -> None:
        """Take what a fold has given, and end if that was the last, or is hopeless."""
        if isinstance(outcome, str):
            self.state, self.reason = "failed", outcome
            return
        self.scores.append(outcome)
        self.of_study.report(self.mean, len(self.scores) - 1)
        if last:
            self.state = "complete"
        elif self.of_study.should_prune():
            self.state = "pruned"


class _Asking:
    """Asks Optuna for trials, and tells it what became of them, both in order."""

    def __init__(self, study: optuna.Study, where: Mapping[str, Dimension]) -> None:
        self._study, self._where = study, where
        self._distributions = {name: dimension.distribution for name, dimension in where.items()}
        self._tried: set[tuple[Any, ...]] = set()

    def ask(self, count: int) -> list[_Trial]:
        """Return so many trials of parameters that were not asked for before; fewer if no more are found."""
        new = (trial for trial in (self._new() for _ in range(count)) if trial is not None)
        return [
            _Trial(trial, {name: dimension.value(trial.params[name]) for name, dimension in self._where.items()})
            for trial in new
        ]

    def tell(self, trials: list[_Trial]) -> None:
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        for trial in trials:
            value = trial.mean if trial.state == "complete" else None
            self._study.tell(trial.of_study, value, state=states[trial.state])

    def _new(self) -> optuna.trial.Trial | None:
        from optuna.trial import TrialState

        for _ in range(_MOST_REPEATS):
            trial = self._study.ask(self._distributions)
            key = tuple(trial.params[name] for name in self._where)
            if key not in self._tried:
                self._tried.add(key)
                return trial
            self._study.tell(trial, state=TrialState.FAIL)  # the sampler learns nothing from it
        return None


class _Folds:
    """The folds of a panel, on which a model is scored with the parameters of trials."""

    def __init__(
        self, model: FactorModel, panel: Panel, scoring: Scoring, cv: Splitter, executor: Executor | None
    ) -> None:
        self._model, self._panel, self._scoring = model, panel, scoring
        self._positions = [*cv.split(panel)]
        self._map: Callable[..., Iterator[float | str]] = map if executor is None else executor.map

    def follow(self, trials: list[_Trial]) -> None:
        """Take trials through the folds side by side, until all have ended."""
        for fold, positions in enumerate(self._positions, start=1):
            running = [trial for trial in trials if trial.state == "running"]
            if not running:
                return
            train, test = (self._panel.take(dates) for dates in positions)
            jobs = [(self._model, trial.parameters, train, test, self._scoring) for trial in running]
            for trial, outcome in zip(running, self._map(_outcome, *zip(*jobs, strict=True)), strict=True):
                trial.follow(outcome, last=fold == len(self._positions))


def _outcome(
    model: FactorModel, parameters: dict[str, Any], train: Panel, test: Panel, scoring: Scoring
) -> float | str:
    """Return the score of a fold, or the sentence that says why there is none."""
    try:
        score = float(scoring(_fit_anew(model, parameters, train), test))
    except FactorcubeError as error:
        return str(error)
    return score if np.isfinite(score) else f"The score of a fold is {score}: no date or stock could be scored."


def _fit_anew(model: FactorModel, parameters: dict[str, Any], panel: Panel) -> FactorModel:
    """Fit a copy of a model with other parameters, on copies of those that it is fitted on."""
    bases = [_fit_anew(base, {}, panel) for base in model._on()]  # noqa: SLF001  # the public way in has no way out
    copy: FactorModel = model.clone().set_params(**parameters)
    return copy.on(*bases).fit(panel)


def _table(trials: list[_Trial]) -> pd.DataFrame:
    rows = [
        {
            **trial.parameters,
            "score": trial.mean,
            "folds": len(trial.scores),
            "state": trial.state,
            "reason": trial.reason,
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="trial"))
