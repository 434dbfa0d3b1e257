"""The Dask client that a run opens: a `LocalCluster` by default, an existing scheduler by one setting.

Measured overheads decide the shape: a Prefect task on Dask costs 70 ms and starts a Prefect server on every worker, a
Dask future 2-3 ms. So Prefect sees one task per stage, and inside it the fan-out goes to Dask as futures.
Workers have one thread each, and the numeric libraries one thread inside it: side by side is faster than one after the
other with two threads at the sizes of these fits, and the numbers do not depend on how many workers there are.

Whoever speaks to a scheduler or a worker runs code there, and loopback is open to every user of the machine: the
`LocalCluster` speaks TLS with a key that is made for this run and is known to its own processes only.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from threadpoolctl import threadpool_limits

from models.blas import MKL_BRANCH, MKL_VARIABLE
from schemas.errors import ExecutionError, FactorcubeError
from schemas.settings import Settings
from tasks.gathering import Gathering
from tasks.provenance import source_version
from tasks.scheduler import greet, security_of
from tasks.workspace import Workspace, reach_work

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

PROGRESS_TOPIC = "factorcube-progress"
_WARNING = "  warning: "
_WORKER_ENVIRONMENT = {
    MKL_VARIABLE: MKL_BRANCH,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Zarr unpacks chunks in threads of its own; beside one worker per core they only get in each other's way.
    "ZARR_THREADING__MAX_WORKERS": "1",
    "ZARR_ASYNC__CONCURRENCY": "1",
    # Dask trims the heap at 64 kB by default; training then spends half its time on page faults.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
}
_NO_PAGES: dict[str, list[str]] = {
    f"distributed.{role}.http.routes": []  # they show logs and call stacks to whoever asks, without TLS
    for role in ("scheduler", "worker")
}
_UNINTERRUPTED = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""What each worker of a local cluster does first: a Ctrl-C is for the run alone, which then ends its workers."""
_CONNECT_SECONDS = 30

Result = TypeVar("Result")


class Cluster:
    """A client that is opened when the first work arrives, so that a run with nothing to do starts no processes.

    Raises
    ------
    ConfigError
        At once, if the settings name a scheduler that may not be used or cannot be reached safely.
    """

    def __init__(self, settings: Settings, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._security = security_of(settings)
        self._log = log
        self._warned: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None
        self._given_up = False

    @property
    def client(self) -> Client:
        """The open client; connects, and compares code versions, on first use."""
        if self._given_up:
            raise KeyboardInterrupt
        if self._client is None:
            self._client = self._open()
        return self._client

    def submit(self, function: Callable[..., Result], *arguments: Any, key: str) -> Future[Result]:
        """Submit one idempotent call; what it returns must be a small reference.

        A scheduler may be shared, and it takes two calls with one key for the same: the key is made unique. What is
        done already is recognised by its content, in the work store.
        """
        unique = f"{key}-{uuid.uuid4().hex[:12]}"
        return self.client.submit(_by_same_sources, source_version(), function, *arguments, key=unique, pure=False)

    def gather(
        self,
        futures: Sequence[Future[Any]],
        describe: Callable[[Any], str],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Any]:
        """Wait for all futures, logging each as it completes; results come in the order of the futures.

        Parameters
        ----------
        futures : sequence of Future
            What to wait for.
        describe : callable
            Gives the line of a result.
        progress : callable, optional
            Told after each how many are done, of how many.

        Raises
        ------
        FactorcubeError
            Whatever foreseeable error a task raised, as it was raised there.
        ExecutionError
            If workers died under a task again and again, or the scheduler was lost.
        """
        found, failures = self.gather_each({"": futures}, describe, progress)
        for error in failures.values():
            raise error
        return found[""]

    def gather_each(
        self,
        futures: Mapping[str, Sequence[Future[Any]]],
        describe: Callable[[Any], str],
        progress: Callable[[int, int], None] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[dict[str, list[Any]], dict[str, Exception]]:
        """Wait for the futures of several models, as `gather` does; one that fails takes none of the others along.

        Parameters
        ----------
        futures : mapping of str to sequence of Future
            By the name of the model.
        describe, progress
            As in `gather`.
        needs : mapping of str to sequence of str, optional
            The models that a model cannot do without.

        Returns
        -------
        dict of str to list
            The results of each model of which every future was done.
        dict of str to Exception
            The first error of each of the others; what was still to be done of them is cancelled.

        Raises
        ------
        ExecutionError
            If the scheduler was lost, or all workers of a cluster that was started here.
        """
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError

        if not any(futures.values()):
            return {name: [] for name in futures}, {}

        def say(result: Any, done: int, total: int) -> None:
            self._log(f"[{done}/{total}] {describe(result)}")
            if progress is not None:
                progress(done, total)

        try:
            return Gathering(self.client, futures, needs or {}, say, self._log, self._look).all()
        except (FutureCancelledError, CommClosedError, TimeoutError) as error:
            if self._given_up:
                raise KeyboardInterrupt from None
            raise ExecutionError(
                f"the Dask scheduler was lost: {' '.join(str(error).split())}; run again to go on with what is not done"
            ) from None
        except BaseException:
            if not self._given_up:
                self.client.cancel([future for own in futures.values() for future in own], force=True)
            raise

    def _look(self) -> None:
        """Raise if no worker is there, and none will come: one that was told to end is not replaced.

        A scheduler of others may have workers again at any time, and is waited for.
        """
        if self.client.scheduler_info(n_workers=-1)["workers"]:
            return
        if self._settings.dask_scheduler is None:
            raise ExecutionError("all Dask workers have ended: somebody told them to; run again to go on")
        self.tell(f"{_WARNING}no Dask worker at {self._settings.dask_scheduler}; waiting for one")

    def give_up(self) -> None:
        """Close for good: threads that still wait here for a result end as the main thread does, by an interrupt."""
        self._given_up = True
        self.close()

    def close(self) -> None:
        """Close the client, and the cluster if it was started here."""
        self._stack.close()
        self._client = None

    def _open(self) -> Client:
        from distributed import Client

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        address: Any = self._settings.dask_scheduler
        security = self._security
        if address is None:
            address = self._start()
            security = address.security
        greet(self._settings, self._security)
        try:
            client: Client = Client(address, timeout=_CONNECT_SECONDS, security=security)
            self._stack.callback(client.close)  # its own context must be left in the thread that entered it
        except (OSError, TimeoutError) as error:
            raise ExecutionError(
                f"no Dask scheduler answers at {address} (FACTORCUBE_DASK_SCHEDULER): {error}"
            ) from None
        self._refuse_other_code(client)
        self._refuse_other_work(client)
        client.subscribe_topic(PROGRESS_TOPIC, lambda event: self.tell(str(event[1])))
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        where = self._settings.dask_scheduler or "started on this machine"
        self._log(f"Dask: {workers} worker(s), {where}" if workers else f"Dask: no worker yet at {where}")
        return client

    def _start(self) -> LocalCluster:
        """Start scheduler and workers that only this process can speak to; they end with the stack."""
        import dask
        from distributed import LocalCluster, Security

        # Dask's own folder has a name that anybody can take first, and what is spilled there is read back as pickle.
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="factorcube-dask-"))
        with dask.config.set({"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT, **_NO_PAGES}):
            cluster = LocalCluster(
                n_workers=self._settings.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                security=Security.temporary(),
                local_directory=folder,
                memory_limit=self._settings.worker_memory_bytes,
                preload=[_UNINTERRUPTED],
                silence_logs=logging.CRITICAL,
            )
        self._stack.enter_context(cluster)
        return cluster

    def tell(self, line: str) -> None:
        """Log a line from a worker; of warnings that differ in numbers alone, as those of refits do, the first."""
        if line.startswith(_WARNING):
            kind = re.sub(r"\b\d[\d.,]*\b", "", line)
            if kind in self._warned:
                return
            self._warned.add(kind)
        self._log(line)

    def _refuse_other_code(self, client: Client) -> None:
        """Refuse workers with other sources; each task asks again, since workers come later where their number adapts.

        A plugin of Dask would stay with a scheduler that outlives the run, and turn away the workers of a new release.
        """
        try:
            versions = client.run(source_version)
        except Exception as error:  # noqa: BLE001  # what a worker cannot import comes back as a bare Exception
            raise ExecutionError(
                f"the Dask workers cannot run factorcube: {error}; install this version on them"
            ) from None
        other = {address: found for address, found in versions.items() if found != source_version()}
        if other:
            address, found = next(iter(other.items()))
            raise ExecutionError(_other_code(f"{len(other)} Dask worker(s) run", address, found, source_version()))

    def _refuse_other_work(self, client: Client) -> None:
        for worker, why in workers_without(client, self._settings).items():
            raise ExecutionError(f"Dask worker {worker} cannot reach the intermediate results of this run: {why}")


@contextlib.contextmanager
def open_cluster(settings: Settings, log: Callable[[str], None]) -> Iterator[Cluster]:
    """Give a `Cluster` that is closed at the end of the block."""
    cluster = Cluster(settings, log)
    try:
        yield cluster
    except Exception:
        raise
    except BaseException:
        cluster.give_up()
        raise
    finally:
        cluster.close()


def workers_without(client: Client, settings: Settings) -> dict[str, str]:
    """Return why workers cannot use the object store of intermediate results, by their addresses; none if all can."""
    shared = Workspace.of_workers(settings).shared
    if shared is None:
        return {}
    found = client.run(reach_work, shared.locate(""), on_error="return")
    return {
        worker: str(error) if isinstance(error, FactorcubeError) else type(error).__name__
        for worker, error in found.items()
        if error is not None
    }


def report_progress(message: str) -> None:
    """Send one line from a worker to whoever watches the run; silent outside a worker."""
    from distributed import get_worker

    with contextlib.suppress(ValueError):
        get_worker().log_event(PROGRESS_TOPIC, message)


def _other_code(who: str, address: str, there: str, here: str) -> str:
    return (
        f"{who} another version of the code (worker {address}: {there}, here: {here}); install the same version on them"
    )


def _by_same_sources(code: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function by the sources of the run, in one thread; its warnings are told to the run."""
    import torch

    if code != source_version():
        from distributed import get_worker

        raise ExecutionError(_other_code("a Dask worker runs", get_worker().address, source_version(), code))

    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        result = function(*arguments)
    for text in sorted({str(item.message) for item in caught if issubclass(item.category, UserWarning)}):
        report_progress(_WARNING + text)
    return result
