"""Waiting for the futures of several models, so that one that fails takes none of the others along.

Dask blames the death of a worker on everything that the worker held, also on what only waited there. So what was blamed
is tried once more when all else is done, model by model: then nobody but the culprit is blamed again.

Which client is asked, and what a lost scheduler means, belongs in `tasks.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.errors import ExecutionError

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 30.0
"""How long nothing may have happened until somebody looks whether there are workers at all."""


class Gathering:
    """The futures of several models, and what becomes of them.

    Parameters
    ----------
    client : Client
        Theirs.
    futures : mapping of str to sequence of Future
        By the name of the model; a model comes after those that it needs.
    needs : mapping of str to sequence of str
        The models that a model cannot do without.
    say : callable
        Told each result, how many are done, and of how many.
    warn : callable
        Told what is tried again.
    look : callable
        Called when nothing has happened for a while; raises if nothing will.
    """

    def __init__(
        self,
        client: Client,
        futures: Mapping[str, Sequence[Future[Any]]],
        needs: Mapping[str, Sequence[str]],
        say: Callable[[Any, int, int], None],
        warn: Callable[[str], None],
        look: Callable[[], None],
    ) -> None:
        self._client, self._futures, self._needs, self._say, self._warn = client, futures, needs, say, warn
        self._look = look
        self._owner = {future.key: name for name, own in futures.items() for future in own}
        self._failures: dict[str, Exception] = {}
        self._done: set[Any] = set()

    def all(self) -> tuple[dict[str, list[Any]], dict[str, Exception]]:
        """Wait for all; return the results of each model that is whole, and the first error of each of the others."""
        blamed = self._wait([future for own in self._futures.values() for future in own])
        for name in (name for name in self._futures if name in blamed):
            if name not in self._failures:
                self._warn(f"worker after worker died under {blamed[name].task}: it is tried again by itself")
                own = self._futures[name]
                self._client.retry([future for future in own if future.status == "error"])
                again = self._wait(own)
                if name in again:
                    self._fail(name, _blamed(again[name]))
        found = {
            name: [future.result() for future in own]
            for name, own in self._futures.items()
            if name not in self._failures
        }
        return found, self._failures

    def _wait(self, futures: Sequence[Future[Any]]) -> dict[str, Any]:
        """Wait for futures; return the models that the death of workers is blamed on."""
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        blamed: dict[str, Any] = {}
        for future in self._completed(futures):
            name = self._owner[future.key]
            if name in self._failures:
                continue
            try:
                result = future.result()
            except KilledWorker as error:
                blamed.setdefault(name, error)
            except (FutureCancelledError, CommClosedError, TimeoutError):
                raise
            except Exception as error:  # noqa: BLE001  # whatever was raised there
                self._fail(name, error)
            else:
                if future.key not in self._done:
                    self._done.add(future.key)
                    self._say(result, len(self._done), len(self._owner))
        return blamed

    def _completed(self, futures: Sequence[Future[Any]]) -> Iterator[Future[Any]]:
        """Give futures as they complete; look now and then, since Dask waits for workers for ever."""
        from distributed import as_completed

        left = {future.key: future for future in futures}
        while left:
            completed = as_completed(left.values(), timeout=LOOK_SECONDS)
            while left:
                try:
                    future = next(completed)
                except TimeoutError:
                    self._look()
                    break
                del left[future.key]
                yield future

    def _fail(self, name: str, error: Exception) -> None:
        """Give up a model, and those that cannot do without it; what is still to be done of them is cancelled."""
        lost = {name: error}
        for _ in self._needs:
            for model, bases in self._needs.items():
                failed = next((base for base in bases if base in lost), None)
                if failed is not None and model not in lost:
                    lost[model] = ExecutionError(f"it is fitted on '{failed}', which failed")
        self._client.cancel([one for each in lost for one in self._futures.get(each, ())], force=True)
        self._failures = {**lost, **self._failures}


def _blamed(error: Any) -> ExecutionError:
    return ExecutionError(
        f"worker after worker died while running {error.task}; it may need more memory "
        "(FACTORCUBE_WORKER_MEMORY_BYTES) or fewer workers (FACTORCUBE_WORKERS)"
    )
