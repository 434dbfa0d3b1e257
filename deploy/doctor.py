"""What works of this installation, one line for each thing, with what to do where something does not.

Here belongs asking; nothing is changed but for one small file under the root, which is removed again. How servers and
stores are opened belongs to `tasks`; secrets are never printed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from pydantic import SecretStr

from deploy.doors import refusal
from schemas.addresses import is_loopback
from schemas.errors import FactorcubeError
from schemas.settings import PREFIX, Settings, load_settings
from tasks.provenance import source_version

State = Literal["ok", "warn", "FAIL"]
_SECONDS = 10
_LEAST_FREE_BYTES = 2**30
_SKEW_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its state, and what to do where it is not ok."""

    state: State
    what: str
    said: str


def examine() -> list[Finding]:
    """Look at everything; a look that fails unexpectedly is a finding too."""
    findings = [*_libraries(), _arithmetic()]
    try:
        settings = load_settings()
    except FactorcubeError as error:
        return [*findings, Finding("FAIL", "settings", str(error))]
    looks: list[Callable[[Settings], Iterator[Finding]]] = [_settings, _root, _store, _work, _configs, _prefect, _dask]
    for look in looks:
        try:
            findings.extend(look(settings))
        except FactorcubeError as error:
            findings.append(Finding("FAIL", look.__name__.removeprefix("_"), str(error)))
        except Exception as error:  # noqa: BLE001  # its text may hold a secret: only the kind is said
            findings.append(Finding("FAIL", look.__name__.removeprefix("_"), f"could not be looked at: {_kind(error)}"))
    return findings


def printed(findings: list[Finding], *, as_json: bool) -> str:
    """Return the findings as lines, or as a JSON list."""
    if as_json:
        return json.dumps([asdict(finding) for finding in findings], indent=2)
    return "\n".join(f"{finding.state:4s} {finding.what}: {finding.said}" for finding in findings)


def _libraries() -> Iterator[Finding]:
    yield Finding("ok", "code", f"factorcube {metadata.version('factorcube')}, source version {source_version()}")
    python = platform.python_version()
    bad = []
    for text in metadata.requires("factorcube") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            bad.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            bad.append(f"{wanted.name} {found} is not {wanted.specifier}")
    if bad:
        yield Finding("FAIL", "libraries", f"{'; '.join(bad)}; install requirements.lock")
    else:
        yield Finding("ok", "libraries", f"within the bounds of pyproject.toml, on Python {python}")
    other = _other_than_locked()
    if other:
        yield Finding("warn", "lock", f"not as locked: {', '.join(other[:5])} ({len(other)} in all); run `make setup`")


def _arithmetic() -> Finding:
    from models.blas import MKL_BRANCH, MKL_VARIABLE, arithmetic, sums_are_reproducible

    facts = arithmetic()
    said = ", ".join(f"{name} {value}" for name, value in facts.items())
    if sums_are_reproducible():
        return Finding("ok", "arithmetic", f"{said}: products tried have the same bits wherever they lie in memory")
    return Finding(
        "warn",
        "arithmetic",
        f"{said}: products differ in their last bits by where they lie in memory, so that a run that is repeated may "
        f"differ too; where torch's BLAS is MKL, unset {MKL_VARIABLE} ({MKL_BRANCH} is taken then), or set COMPATIBLE",
    )


def _other_than_locked() -> list[str]:
    """Name what is installed in another version than requirements.lock says, where that file is at hand."""
    lock = Path(__file__).resolve().parents[1] / "requirements.lock"
    if not lock.exists():
        return []
    other = []
    for name, wanted in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # development tools are locked too
        if found != wanted:
            other.append(f"{name} {found}, not {wanted}")
    return other


def _settings(settings: Settings) -> Iterator[Finding]:
    shown = []
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        shown.append(
            f"{PREFIX}{name.upper()}={'(set, not shown)' if isinstance(value, SecretStr) else _without_user(value)}"
        )
    yield Finding("ok", "settings", ", ".join(shown) if shown else "all as they are by default")
    key = settings.dask_tls_key
    if key is not None and key.exists() and key.stat().st_mode & 0o077:
        yield Finding("warn", "settings", f"{key} can be read by others; run `chmod 600 {key}`")
    from storage.sources.sql import only_reads

    if settings.sql_url is not None and not only_reads(settings.sql_url):
        yield Finding(
            "warn",
            "settings",
            "the database of FACTORCUBE_SQL_URL cannot be held to reading from here; give its user SELECT rights only",
        )


def _root(settings: Settings) -> Iterator[Finding]:
    from storage.files import locked, write_atomic

    probe = settings.root / f".doctor-{uuid.uuid4().hex}"
    try:
        before = time.time()
        write_atomic(probe, "probe")
        with locked(probe.with_suffix(".lock"), timeout_seconds=_SECONDS):
            skew = probe.stat().st_mtime - before
    except (OSError, NotImplementedError) as error:
        yield Finding(
            "FAIL", "root", f"{settings.root} cannot be written, synced and locked: {_kind(error)}; see FACTORCUBE_ROOT"
        )
        return
    finally:
        for left in (probe, probe.with_suffix(".lock")):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    free = shutil.disk_usage(settings.root).free
    said = f"{settings.root} can be written, synced and locked, {free / 2**30:.1f} GiB are free"
    if free < _LEAST_FREE_BYTES:
        yield Finding("FAIL", "root", f"{said}; make room, or run `factorcube maintain`")
    else:
        yield Finding("ok", "root", said)
    yield _clock("the disk of the root", skew)


def _clock(whose: str, skew: float) -> Finding:
    if abs(skew) > _SKEW_SECONDS:
        return Finding("warn", "clock", f"{whose} is {skew:+.0f} s off this machine's clock; synchronise them (NTP)")
    return Finding("ok", "clock", f"agrees with {whose}")


def _store(settings: Settings) -> Iterator[Finding]:
    from tasks.workspace import Workspace

    layout = Workspace.of(settings).layout
    where = layout.store.locate("published")
    try:
        universes = layout.store.folders("published")
    except OSError as error:
        yield Finding("FAIL", "store", f"{where} cannot be read: {_kind(error)}; see FACTORCUBE_STORE and AWS_...")
        return
    yield Finding("ok", "store", f"{where} can be read, {len(universes)} universe(s) are published")


def _work(settings: Settings) -> Iterator[Finding]:
    from tasks.workspace import Workspace

    shared = Workspace.of_workers(settings).shared
    if shared is None:
        return
    try:
        shared.check()
    except OSError as error:
        where = shared.locate()
        yield Finding("FAIL", "work", f"{where} cannot be read: {_kind(error)}; see FACTORCUBE_WORK and AWS_...")
        return
    yield Finding("ok", "work", f"{shared.locate()} can be read; copies lie below {settings.root}")


def _configs(settings: Settings) -> Iterator[Finding]:
    from storage.configs import load_spec

    if not settings.configs.is_dir():
        yield Finding("warn", "configs", f"{settings.configs} is no folder; deployments find their configs there")
        return
    good = []
    for path in sorted(settings.configs.glob("*.yaml")):
        try:
            load_spec(path)
        except FactorcubeError as error:
            yield Finding("FAIL", "configs", str(error))
        else:
            good.append(path.stem)
    yield Finding("ok" if good else "warn", "configs", f"{settings.configs}: {', '.join(good) or 'none that loads'}")


def _prefect(settings: Settings) -> Iterator[Finding]:
    import httpx
    from prefect.settings import get_current_settings

    api = get_current_settings().api
    if api.url is None:
        yield Finding(
            "warn", "prefect", "PREFECT_API_URL is not set: each run starts a server of its own and forgets it"
        )
        return
    secret = None if api.auth_string is None else api.auth_string.get_secret_value()
    host = urlsplit(api.url).hostname or ""
    with httpx.Client(base_url=api.url, timeout=_SECONDS) as client:
        try:
            open_door = client.post("/flows/count", json={})
            answer = open_door if secret is None else client.post("/flows/count", json={}, auth=_basic(secret))
            version = client.get("/admin/version", auth=None if secret is None else _basic(secret))
        except httpx.HTTPError as error:
            yield Finding("FAIL", "prefect", f"no server answers at {api.url}: {_kind(error)}; is it started?")
            return
    if answer.status_code in (401, 403):
        yield Finding("FAIL", "prefect", refusal(api.url, settings))
        return
    if answer.is_error:
        yield Finding("FAIL", "prefect", f"the server at {api.url} answers with {answer.status_code}; see its log")
        return
    yield _prefect_version(api.url, version.json() if version.is_success else None)
    if open_door.is_success:
        yield Finding(
            "warn",
            "prefect",
            "whoever reaches the server may use it, every user of its machine and what their browsers show included; "
            "set PREFECT_SERVER_API_AUTH_STRING there",
        )
    if secret is not None and urlsplit(api.url).scheme == "http" and not is_loopback(host):
        yield Finding("warn", "prefect", "the password travels unencrypted; put the server behind https")
    if "date" in answer.headers:
        yield _clock("the Prefect server", parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time())


def _prefect_version(url: str, found: Any) -> Finding:
    here = metadata.version("prefect")
    if found != here:
        return Finding("warn", "prefect", f"{url} runs Prefect {found}, this client {here}; install the same")
    return Finding("ok", "prefect", f"{url} answers, Prefect {here}")


def _basic(secret: str) -> tuple[str, str]:
    user, _, password = secret.partition(":")
    return user, password


def _dask(settings: Settings) -> Iterator[Finding]:
    from distributed import Client

    from tasks.cluster import workers_without
    from tasks.scheduler import greet, security_of

    address = settings.dask_scheduler
    if address is None:
        yield Finding("ok", "dask", f"each run starts its own cluster of {settings.workers} worker(s)")
        return
    security = security_of(settings)
    greet(settings, security)
    try:
        client = Client(address, timeout=_SECONDS, security=security, set_as_default=False)
    except (OSError, TimeoutError) as error:
        yield Finding(
            "FAIL", "dask", f"no scheduler answers at {address}: {_kind(error)}; see FACTORCUBE_DASK_SCHEDULER"
        )
        return
    with client:
        here = source_version()
        workers = client.scheduler_info(n_workers=-1)["workers"]
        found = client.run(source_version, on_error="return") if workers else {}
        lost = workers_without(client, settings) if workers else {}
    if not workers:
        yield Finding("FAIL", "dask", f"{address} has no workers; start some, or runs wait and fail")
        return
    other = {worker: code for worker, code in found.items() if code != here}
    for worker, code in sorted(other.items()):
        runs = f"runs code {code}" if isinstance(code, str) else f"cannot run factorcube ({_kind(code)})"
        yield Finding("FAIL", "dask", f"worker {worker} {runs}, here it is {here}; install the same version there")
    for worker, why in sorted(lost.items()):
        yield Finding("FAIL", "dask", f"worker {worker} cannot reach the intermediate results: {why}")
    if not other and not lost:
        how = "over TLS" if security is not None else "without TLS"
        yield Finding("ok", "dask", f"{address} answers {how}; {len(workers)} worker(s) run code {here}")


def _without_user(value: Any) -> str:
    return re.sub(r"//[^/@]*@", "//***@", str(value))


def _kind(error: BaseException) -> str:
    """Say what went wrong without repeating a message that may hold an address with a password."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
