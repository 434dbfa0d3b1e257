"""`factorcube doctor`: what works is said to work, what is broken is named with what to do, no secret is shown."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from certificates import make_authority
from dask_processes import dask_process, dask_scheduler, tls_options
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from small_market import write_config
from typer.testing import CliRunner

from deploy import doctor
from deploy.cli import app
from deploy.doctor import Finding, examine
from models.blas import arithmetic
from schemas.settings import Settings
from tasks.provenance import source_version

SECRET = "hunter2-of-the-test"


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    write_config(tmp_path / "configs", {})
    for name, value in {
        "FACTORCUBE_ROOT": tmp_path / "root",
        "FACTORCUBE_CONFIGS": tmp_path / "configs",
        "FACTORCUBE_SQL_URL": f"postgresql://me:{SECRET}@db.example.com/x",
        "FACTORCUBE_ALERT_WEBHOOK": f"https://hooks.example.com/{SECRET}",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def _of(what: str, findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.state, finding.said) for finding in findings if finding.what == what]


def _states(findings: list[Finding]) -> set[str]:
    return {finding.state for finding in findings}


def test_a_sound_installation(installation: Path, prefect_api: str) -> None:
    findings = examine()
    assert "FAIL" not in _states(findings)
    assert _of("configs", findings) == [("ok", f"{installation / 'configs'}: config")]
    answers, open_door = _of("prefect", findings)
    assert answers == ("ok", f"{prefect_api} answers, Prefect {metadata.version('prefect')}")
    assert open_door[0] == "warn"
    assert "every user of its machine" in open_door[1]
    assert ("ok", "agrees with the Prefect server") in _of("clock", findings)
    assert ("ok", "agrees with the disk of the root") in _of("clock", findings)
    assert list((installation / "root").iterdir()) == []


def test_it_prints_lines_or_json_and_exits_by_what_it_found(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        printed = CliRunner().invoke(app, ["doctor"])
        listed = CliRunner().invoke(app, ["doctor", "--json"])
    assert printed.exit_code == 1
    assert "FAIL prefect: no server answers at http://127.0.0.1:9/api: ConnectError; is it started?" in printed.output
    assert "FACTORCUBE_SQL_URL=(set, not shown)" in printed.output
    assert {item["state"] for item in json.loads(listed.output)} >= {"ok", "FAIL"}
    assert SECRET not in printed.output + listed.output


def test_a_broken_setting_is_the_last_finding(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_WORKRES", "2")
    assert examine()[-1].said.startswith("environment: unknown setting FACTORCUBE_WORKRES (did you mean")


def test_a_root_that_cannot_be_written(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installation / "file").write_text("")
    monkeypatch.setenv("FACTORCUBE_ROOT", str(installation / "file" / "root"))
    ((state, said),) = _of("root", examine())
    assert state == "FAIL"
    assert "cannot be written: Not a directory" in said


def test_little_room_is_a_failure(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_FREE_BYTES", 2**60)
    ((state, said),) = _of("root", examine())
    assert state == "FAIL"
    assert "make room" in said


def test_a_config_that_does_not_load_is_named(installation: Path) -> None:
    (installation / "configs" / "bad.yaml").write_text("universe: x\nmodles: []\n")
    found = _of("configs", examine())
    assert [state for state, _ in found] == ["FAIL", "ok"]
    assert "bad.yaml" in found[0][1]
    assert "modles" in found[0][1]


def test_a_store_that_cannot_be_read(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FACTORCUBE_STORE": "s3://bucket/prefix",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    findings = examine()
    ((state, said),) = _of("store", findings)
    assert state == "FAIL"
    assert "bucket" in said
    assert SECRET not in str(findings)


def test_a_store_of_intermediate_results_is_looked_at(
    installation: Path, s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(root=installation / "root", work=s3[0])
    assert list(doctor._work(settings)) == [
        Finding("ok", "work", f"{s3[0]}/work can be read; copies lie below {installation / 'root'}")
    ]
    monkeypatch.setattr("storage.stores.objects._RETRY", {"max_retries": 0})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (found,) = doctor._work(settings)
    assert found.state == "FAIL"
    assert found.said == f"{s3[0]}/work cannot be read: StoreError; see FACTORCUBE_WORK and AWS_..."


def test_a_server_that_asks_for_a_password(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    api = "http://prefect.example.com/api"
    right = httpx.BasicAuth("admin", SECRET)._auth_header

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/version"):
            return httpx.Response(200, json="3.0.0")
        return httpx.Response(200 if request.headers.get("authorization") == right else 401, json=1)

    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **given: real(**given, transport=httpx.MockTransport(answer)))
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: "admin:wrong"}):
        ((state, said),) = _of("prefect", examine())
    assert state == "FAIL"
    assert "refuses this client; set PREFECT_API_AUTH_STRING to its password" in said
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: f"admin:{SECRET}"}):
        found = _of("prefect", examine())
    assert [state for state, _ in found] == ["warn", "warn"]
    assert "runs Prefect 3.0.0" in found[0][1]
    assert "the password travels unencrypted" in found[1][1]


def test_libraries_outside_their_bounds_are_named(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.1.0" if name.lower() == "sqlalchemy" else real(name))
    findings = examine()
    ((state, said),) = _of("libraries", findings)
    assert state == "FAIL"
    assert said.startswith("sqlalchemy 2.1.0 is not ")
    assert "sqlalchemy 2.1.0, not 2.0." in _of("lock", findings)[0][1]


def test_a_look_that_fails_unexpectedly_says_only_its_kind(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(doctor, "_store", broken)
    assert SECRET not in str(examine())
    assert ("FAIL", "could not be looked at: RuntimeError") in _of("broken", examine())


def test_schedulers_and_workers(installation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", "tcp://scheduler.example.com:8786")
    ((state, said),) = _of("dask", examine())
    assert state == "FAIL"
    assert "neither on this machine nor behind TLS" in said
    pem = make_authority(tmp_path / "team")
    (pem / "key.pem").chmod(0o644)
    for name in ("ca", "cert", "key"):
        monkeypatch.setenv(f"FACTORCUBE_DASK_TLS_{name.upper()}", str(pem / f"{name}.pem"))
    with dask_scheduler(tmp_path, "--host=tls://127.0.0.1", *tls_options(pem)) as address:
        monkeypatch.setenv("FACTORCUBE_DASK_SCHEDULER", address)
        assert _of("dask", examine()) == [("FAIL", f"{address} has no workers; start some, or runs wait and fail")]
        where = ["--nthreads=1", "--no-nanny", f"--local-directory={tmp_path}"]
        with dask_process("worker", address, *where, *tls_options(pem)):
            source_version.cache_clear()
            _wait_for_a_worker(address, pem)
            findings = examine()
            monkeypatch.setattr(doctor, "source_version", _another)
            ((state, said),) = _of("dask", examine())
    assert _of("dask", findings) == [("ok", f"{address} answers over TLS; 1 worker(s) run code {source_version()}")]
    assert any("can be read by others; run `chmod 600" in said for _, said in _of("settings", findings))
    assert state == "FAIL"
    assert "cannot run factorcube" in said
    assert said.endswith(f"here it is {_another()}; install the same version there")


def _another() -> str:
    return "0" * 16


def _wait_for_a_worker(address: str, pem: Path) -> None:
    from distributed import Client, Security

    files = {"tls_ca_file": "ca.pem", "tls_client_cert": "cert.pem", "tls_client_key": "key.pem"}
    security = Security(require_encryption=True, **{key: str(pem / name) for key, name in files.items()})
    with Client(address, security=security, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)


@pytest.mark.parametrize(("same", "state"), [(True, "ok"), (False, "warn")])
def test_the_arithmetic_is_said(same: bool, state: str, installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.blas.sums_are_reproducible", lambda: same)
    ((found, said),) = _of("arithmetic", examine())
    assert found == state
    assert said.startswith(", ".join(f"{name} {value}" for name, value in arithmetic().items()))
    assert ("unset MKL_CBWR" in said) is not same


def test_the_source_version_is_said(installation: Path) -> None:
    assert source_version() in _of("code", examine())[0][1]
