"""What a flow run needs around its steps: a name that says what it does, the right to run, and a fitting end.

Here belongs what is the same for all flows. Events belong in `tasks.events`, tables and links in `tasks.artifacts`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Completed

from schemas.errors import ClosedError, ConflictError, HeldError
from schemas.families import ModelSpec
from schemas.settings import Settings
from schemas.spec import RunSpec
from storage.files import locked
from storage.layout import Layout
from storage.sources.calendars import why_closed

_NAMED_MODELS = 3
"""How many models a run's name lists before it counts them."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def run_name() -> str:
    """Name a flow run by its flow, universe, models and date: ``retrain us_demo: ipca, pca (2022-01-31)``."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        raise RuntimeError("a run is named inside its context")
    given = context.parameters or {}
    spec = given["spec"]
    asked = [str(given[name]) for name in ("start", "as_of", "until", "end") if given.get(name)]
    due = context.flow_run.expected_start_time or datetime.now(UTC)
    models = _models_of(context.flow.name, spec, given.get("models"))
    return f"{context.flow.name} {spec.universe}{models} ({' to '.join(asked) or due.date()})"


def _models_of(flow: str, spec: RunSpec, asked: Sequence[str] | None) -> str:
    if flow == "ingest":
        return ""
    names = asked or [model.name for model in spec.models]
    return f": {', '.join(names)}" if len(names) <= _NAMED_MODELS else f": {len(names)} models"


def ends_early(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a flow end without failing where it may not run; it goes between ``@flow`` and the function.

    A `ClosedError` ends the run as Completed, named Skipped; a `HeldError`, and a cancelled run inside it, as
    Cancelled. The message is that of the error. Who calls the flow itself gets Prefect's `CancelledRun`.
    """

    @wraps(function)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        state: Any
        try:
            return function(*args, **kwargs)
        except ClosedError as error:
            state = Completed(name="Skipped", message=str(error))
        except (HeldError, CancelledRun) as error:
            state = Cancelled(message=str(error))
        return cast("Result", state)  # Prefect takes a state that a flow returns for the state of its run

    # Prefect looks up the names of annotations where the function was made: here they would not be known.
    guarded.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]  # mypy knows none
    return guarded


def require_session(spec: RunSpec) -> None:
    """Refuse to go on if the exchange was closed on the day that the run was scheduled for.

    The scheduled day counts, not today: a run that was late, because the worker was down, still brings its day in.

    Raises
    ------
    ClosedError
        The message names the exchange and the day.
    """
    context = FlowRunContext.get()
    due = context.flow_run.expected_start_time if context is not None and context.flow_run is not None else None
    reason = why_closed(spec.calendar, due or datetime.now(UTC))
    if reason is not None:
        raise ClosedError(f"nothing to ingest for {spec.universe}: {reason}")


@contextmanager
def hold_models(universe: str, models: Sequence[ModelSpec], settings: Settings) -> Iterator[None]:
    """Hold the models of a universe for one retrain; the kernel lets go of them if the process dies.

    Parameters
    ----------
    universe : str
        Their universe.
    models : sequence of ModelSpec
        The models that are fitted.
    settings : Settings
        The root, where the locks are.

    Raises
    ------
    HeldError
        If another run holds one of them; the message names it. Nothing is held then.
    """
    layout = Layout(settings.root)
    with ExitStack() as stack:
        for model in sorted(model.name for model in models):
            path = layout.retrain_lock(universe, model)
            try:
                stack.enter_context(locked(path, timeout_seconds=0, note=_this_run()))
            except ConflictError:
                holder = path.read_text(encoding="utf-8").strip() or "another process"
                raise HeldError(f"{universe}/{model} is being retrained already by {holder}") from None
        yield


def _this_run() -> str:
    context = FlowRunContext.get()
    return f"flow run '{context.flow_run.name}'" if context is not None and context.flow_run is not None else ""
