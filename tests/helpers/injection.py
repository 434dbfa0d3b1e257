"""Real runs in processes of their own, with a fault at the n-th change of the disk, and a reader that loops meanwhile.

Changes are counted from outside the code under test: Python's audit events tell of every file opened to write, rename,
link, removal and folder; `os.fsync` and Icechunk's store and commit, which raise no event, are wrapped.
"""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import icechunk
import xarray as xr
from prefect.context import refresh_global_settings_context

from schemas.errors import CubeError, FactorcubeError
from storage.cube import Cube
from tasks.workspace import Workspace

NEEDS_SPACE = {"open", "os.mkdir", "os.rename", "os.symlink", "fsync", "store", "commit"}
_PRELOADED = ["pytest", "flows.ingest", "flows.pipeline", "tasks.checking", "tasks.checking.datadocs", "distributed"]

Fault = Callable[[int, str], None]
"""What happens at the n-th change of the disk, which is of that kind."""


def ingest_config(config: str) -> None:
    """Ingest the source of a config."""
    from flows.ingest import ingest
    from storage.configs import load_spec

    ingest(load_spec(Path(config)))


def run_config(config: str) -> None:
    """Run the whole job of a config, and promote what is first of its kind."""
    from flows.pipeline import pipeline
    from storage.configs import load_spec

    pipeline(load_spec(Path(config)), promote_first=True)


@dataclass(frozen=True)
class Outcome:
    """How a run in a process of its own ended."""

    exitcode: int
    steps: int
    said: str


class Injector:
    """Runs jobs in processes forked from a server that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*_PRELOADED, __name__])
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # without it the server cannot import this package
        try:
            forkserver.ensure_running()
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def start(self, job: Callable[[str], None], config: Path, root: Path, fault: Fault | None = None) -> Any:
        """Start a job; its output goes to a log beside."""
        environment = {**os.environ, "FACTORCUBE_ROOT": str(root)}
        arguments = (job, str(config), root, fault, environment, self._folder)
        process = self._context.Process(target=_run, args=arguments)
        process.start()
        return process

    def run(self, job: Callable[[str], None], config: Path, root: Path, fault: Fault | None = None) -> Outcome:
        """Run a job to its end."""
        process = self.start(job, config, root, fault)
        process.join(240)
        if process.is_alive():
            process.kill()
            raise TimeoutError(self.log(process.pid))
        return self.outcome(process)

    def outcome(self, process: Any) -> Outcome:
        """Return how a process that has ended did."""
        process.join(240)
        steps = self._folder / f"{process.pid}.steps"
        said = self._folder / f"{process.pid}.said"
        return Outcome(
            exitcode=process.exitcode,
            steps=int(steps.read_text()) if steps.exists() else 0,
            said=said.read_text() if said.exists() else self.log(process.pid)[-3000:],
        )

    def log(self, pid: int) -> str:
        """Return what a process has printed."""
        return (self._folder / f"{pid}.log").read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Kill:
    """SIGKILL just before one change of the disk."""

    at: int

    def __call__(self, step: int, kind: str) -> None:
        del kind
        if step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FullDisk:
    """From one change of the disk on, nothing that needs space succeeds any more."""

    since: int

    def __call__(self, step: int, kind: str) -> None:
        if step >= self.since and kind in NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _nothing(step: int, kind: str) -> None:
    del step, kind


def _run(
    job: Callable[[str], None], config: str, root: Path, fault: Fault | None, environment: dict[str, str], folder: Path
) -> None:
    """Run a job with a fault, in a process of its own; exit with 0 or, after a foreseeable error, with 1."""
    os.environ.clear()
    os.environ.update(environment)
    refresh_global_settings_context()  # Prefect has read the environment when it was imported, before the fork
    log = os.open(folder / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    steps = on_every_change(root, fault or _nothing)
    try:
        job(config)
    except FactorcubeError as error:
        (folder / f"{os.getpid()}.said").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        sys.exit(1)
    finally:
        (folder / f"{os.getpid()}.steps").write_text(str(steps()), encoding="utf-8")


def on_every_change(root: Path, fault: Fault) -> Callable[[], int]:
    """Call `fault` with 1, 2, ... and a kind before every change of the disk below `root`; return a count of them."""
    lock, count = threading.Lock(), 0

    def changing(kind: str) -> None:
        nonlocal count
        with lock:
            count += 1
            step = count
        fault(step, kind)

    def audited(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in {"os.rename", "os.symlink", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (changes or writes) and str(root) in str(arguments):
            changing(event)

    sys.addaudithook(audited)
    _wrap(os, "fsync", changing, "fsync")
    _wrap(icechunk.IcechunkStore, "set", changing, "store")
    _wrap(icechunk.Session, "commit", changing, "commit", also_after=True)
    return lambda: count


def _wrap(owner: Any, name: str, changing: Callable[[str], None], kind: str, *, also_after: bool = False) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        changing(kind)
        result = original(*arguments, **named)
        if also_after:  # the writer dies before it learns that it has committed
            changing(f"after {kind}")
        return result

    setattr(owner, name, wrapped)


def spread(steps: int, number: int) -> list[int]:
    """Return about so many of the steps 1 ... `steps`, the first and the last among them, evenly spread."""
    return sorted({1 + round(place * (steps - 1) / (number - 1)) for place in range(number)})


def content_of(dataset: xr.Dataset) -> str:
    """SHA-256 of every label and every value of a dataset, bit for bit."""
    digester = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        values = dataset[name].values
        digester.update(f"{name} {dataset[name].dims} {values.shape}".encode())
        digester.update(repr(values.tolist()).encode() if values.dtype.kind in "UOT" else values.tobytes())
    return digester.hexdigest()


@dataclass
class Seen:
    """What a reader has met: the content of the cube and of `latest`, and what it could not read."""

    cubes: set[str] = field(default_factory=set)
    versions: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    rounds: int = 0


def look(root: Path, seen: Seen, universe: str = "small", model: str = "market") -> None:
    """Read the head of a cube and the champion once, as any reader does."""
    try:
        seen.cubes.add(content_of(Cube.open(Workspace(root).layout, universe).open_dataset()))
    except CubeError as error:
        if "does not exist" not in str(error) and "is empty" not in str(error):
            raise
    latest = root / "published" / universe / model / "latest"
    if latest.is_symlink():
        version = latest.resolve()
        content = content_of(xr.open_zarr(version))
        if seen.versions.setdefault(version.name, content) != content:
            seen.errors.append(f"{version.name} has changed")
    seen.rounds += 1


def seen_at(root: Path) -> Seen:
    """Look once at what a reader sees."""
    seen = Seen()
    look(root, seen)
    return seen


@contextmanager
def reading(root: Path, universe: str = "small", model: str = "market") -> Iterator[Seen]:
    """Loop over the head of a cube and the champion in a thread; another process writes meanwhile."""
    seen, stop = Seen(), threading.Event()

    def loop() -> None:
        while not stop.is_set():
            try:
                look(root, seen, universe, model)
            except Exception as error:  # noqa: BLE001  # whatever a reader meets is what the test is about
                seen.errors.append(f"{type(error).__name__}: {error}")
            stop.wait(0.02)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
