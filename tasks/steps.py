"""What makes a function a step of a run: a Prefect task inside of one, and the plain function outside.

A step has one name. In a flow, or in a task of one, each call shows in Prefect with what it is about, and is tried
again where that may help; a test or a notebook calls the same function without a server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from schemas.errors import ConflictError, HeldError, StoreError
from tasks.logs import in_run

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def step(
    name: str, about: str, *, retried: bool = False
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make a function a step.

    Parameters
    ----------
    name : str
        What it does: the name of the task.
    about : str
        What one call is about, with parameters of the function in braces: the name of the task run.
    retried : bool
        Whether a call that failed because of a store or another writer is tried again, after 10 and after 60 s.
    """
    options: dict[str, Any] = {
        "retries": 2,
        "retry_delay_seconds": [10, 60],
        "retry_condition_fn": worth_retrying,
    }

    def make(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        shown = task(name=name, task_run_name=about, cache_policy=NO_CACHE, **(options if retried else {}))(function)

        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            return shown(*args, **kwargs) if in_run() else function(*args, **kwargs)

        return call

    return make


def worth_retrying(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a step may succeed if it is tried again: a store that did not answer, another writer that was faster.

    Wrong data, a wrong config or a full disk stay what they are, and fail at once.
    """
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None)
    if isinstance(error, HeldError):
        return False
    return isinstance(error, StoreError | ConflictError | ConnectionError | TimeoutError)
