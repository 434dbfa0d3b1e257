"""Who may reach a Dask scheduler: real schedulers and workers over TLS, foreign certificates, plain addresses."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from certificates import make_authority
from dask_processes import dask_process, dask_scheduler, tls_options

from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings
from tasks.cluster import open_cluster
from tasks.scheduler import security_of


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("pem") / "trusted")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("pem") / "foreign")


@pytest.fixture(scope="module")
def scheduler(trusted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a scheduler behind TLS, with one worker process."""
    folder = tmp_path_factory.mktemp("scheduler")
    with dask_scheduler(folder, "--host=tls://127.0.0.1", *tls_options(trusted)) as address:
        where = ["--host=127.0.0.1", "--nthreads=1", f"--local-directory={folder}"]
        with dask_process("worker", address, *where, *tls_options(trusted)):
            yield address


def _settings(root: Path, address: str, pem: Path) -> Settings:
    return Settings(
        root=root,
        dask_scheduler=address,
        dask_tls_ca=pem / "ca.pem",
        dask_tls_cert=pem / "cert.pem",
        dask_tls_key=pem / "key.pem",
    )


@pytest.mark.slow
def test_work_is_done_on_a_worker_behind_tls(scheduler: str, trusted: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    assert scheduler.startswith("tls://")
    with open_cluster(_settings(tmp_path, scheduler, trusted), lines.append) as cluster:
        assert cluster.gather([cluster.submit(divmod, 7, 2, key="divmod")], str) == [(3, 1)]
        workers = list(cluster.client.scheduler_info()["workers"])
    assert workers
    assert all(address.startswith("tls://") for address in workers)
    assert any(scheduler in line for line in lines)


def test_a_client_of_another_authority_is_refused(scheduler: str, foreign: Path, tmp_path: Path) -> None:
    with (
        open_cluster(_settings(tmp_path, scheduler, foreign), print) as cluster,
        pytest.raises(ExecutionError, match="do not trust each other: certificate verify failed"),
    ):
        cluster.submit(divmod, 7, 2, key="divmod")


def test_the_scheduler_itself_refuses_a_foreign_client(
    scheduler: str, trusted: Path, foreign: Path, tmp_path: Path
) -> None:
    (tmp_path / "mixed").mkdir()  # trusts the scheduler, but is not trusted by it
    for name, source in (("ca.pem", trusted), ("cert.pem", foreign), ("key.pem", foreign)):
        (tmp_path / "mixed" / name).write_bytes((source / name).read_bytes())
    with (
        open_cluster(_settings(tmp_path, scheduler, tmp_path / "mixed"), print) as cluster,
        pytest.raises(ExecutionError, match=r"do not trust each other: .*unknown ca"),
    ):
        cluster.submit(divmod, 7, 2, key="divmod")


def test_a_plain_client_is_refused(scheduler: str) -> None:
    from distributed import Client

    with (
        pytest.raises(OSError, match=r"(?i)connect|timed out"),
        closing(Client(scheduler.replace("tls://", "tcp://"), timeout=3)),
    ):
        pass


def test_nobody_else_speaks_to_the_cluster_of_a_run(tmp_path: Path) -> None:
    """Every port of its processes asks for the certificate, or answers that there is no such page."""
    from distributed import Client, Security

    children = psutil.Process().children()  # a scheduler of another test may yet start a worker
    before = _ports(children)
    with open_cluster(Settings(root=tmp_path, workers=1), print) as cluster:
        assert cluster.gather([cluster.submit(divmod, 7, 2, key="divmod")], str) == [(3, 1)]
        address = cluster.client.scheduler.address
        for plain, security in ((address.replace("tls://", "tcp://"), None), (address, Security.temporary())):
            with (
                pytest.raises(OSError, match=r"(?i)connect|timed out|certificate"),
                closing(Client(plain, timeout=1, security=security)),
            ):
                pass
        answers = [_stranger(port) for port in _ports(children) - before]
    assert set(answers) == {"404", "certificate required"}
    assert answers.count("certificate required") >= 3, "scheduler, nanny and worker"


def _ports(besides: Sequence[psutil.Process]) -> set[int]:
    """Return where this process and its descendants listen, but for children of before and what they start."""
    me = psutil.Process()
    own = [child for child in me.children() if child not in besides]
    return {
        connection.laddr.port
        for process in (me, *own, *(below for child in own for below in child.children(recursive=True)))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def _stranger(port: int) -> str:
    """Return what a port answers to somebody without a certificate."""
    pages = ("/", "/status", "/info/main/workers.html", "/info/logs.html", "/metrics", "/json/counts.json", "/health")
    try:
        codes = {str(httpx.get(f"http://127.0.0.1:{port}{page}", timeout=30).status_code) for page in pages}
        return " ".join(sorted(codes))
    except httpx.HTTPError:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
            socket.create_connection(("127.0.0.1", port), 30) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            encrypted.recv(1)  # with TLS 1.3 the refusal comes after the handshake
        return "certificate required"


def test_a_scheduler_without_tls_is_no_scheduler_behind_tls(trusted: Path, tmp_path: Path) -> None:
    with dask_scheduler(tmp_path, "--host=tcp://127.0.0.1") as plain:
        address = plain.replace("tcp://", "tls://")
        with (
            open_cluster(_settings(tmp_path, address, trusted), print) as cluster,
            pytest.raises(ExecutionError, match=r"do not trust each other: wrong version number"),
        ):
            cluster.submit(divmod, 7, 2, key="divmod")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.5:8786",
        "tcp://scheduler:8786",
        "tcp://localhost.example.com:8786",
        "tcp://127.0.0.1.example.com:8786",
        "tcp://127.0.0.1@10.0.0.5:8786",
        "tcp://0.0.0.0:8786",
        "tcp://2130706433:8786",
        "tcp://[::ffff:10.0.0.5]:8786",
    ],
)
def test_a_plain_scheduler_elsewhere_is_refused_before_anything_is_computed(address: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="neither on this machine nor behind TLS") as raised,
        open_cluster(Settings(root=tmp_path, dask_scheduler=address), print),
    ):
        pass
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError):
        security_of(Settings(root=tmp_path, dask_scheduler=address, allow_plain_scheduler=address + "0"))
    assert security_of(Settings(root=tmp_path, dask_scheduler=address, allow_plain_scheduler=address)) is None


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://127.8.9.1:1", "tcp://localhost:1", "tcp://[::1]:1"])
def test_a_plain_scheduler_on_this_machine_is_taken(address: str, tmp_path: Path) -> None:
    assert security_of(Settings(root=tmp_path, dask_scheduler=address)) is None


def test_pem_files_that_cannot_be_used_are_named(trusted: Path, foreign: Path, tmp_path: Path) -> None:
    address = "tls://scheduler:8786"
    with pytest.raises(ConfigError, match="FACTORCUBE_DASK_TLS_CA is not set"):
        security_of(Settings(root=tmp_path, dask_scheduler=address))
    with pytest.raises(ConfigError, match=r"nowhere/ca\.pem cannot be read: No such file"):
        security_of(_settings(tmp_path, address, tmp_path / "nowhere"))
    (tmp_path / "bad").mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / "bad" / name).write_bytes((trusted / name).read_bytes())
    (tmp_path / "bad" / "key.pem").write_bytes((foreign / "key.pem").read_bytes())
    with pytest.raises(ConfigError, match="are not a certificate and its unencrypted key: key values mismatch"):
        security_of(_settings(tmp_path, address, tmp_path / "bad"))
    (tmp_path / "bad" / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"bad/ca\.pem is not a PEM file"):
        security_of(_settings(tmp_path, address, tmp_path / "bad"))


def test_workers_that_do_not_have_factorcube_are_refused(
    scheduler: str, trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.cluster.source_version", _only_here)  # this module is not on the worker
    with (
        open_cluster(_settings(tmp_path, scheduler, trusted), print) as cluster,
        pytest.raises(ExecutionError, match=r"the Dask workers cannot run factorcube: .*No module named") as raised,
    ):
        cluster.submit(divmod, 7, 2, key="divmod")
    assert "\n" not in str(raised.value)


def _only_here() -> str:
    return "0" * 8
