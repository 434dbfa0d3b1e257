"""`factorcube serve` for real: server, worker and runs as processes, from the first ingest to a clean stop.

The tests of this module share one installation and build on each other, in their order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import pytest
import xarray as xr
from ports import free_port
from small_market import SMALL, make_market, write_config

from schemas.settings import Settings
from storage.configs import load_spec
from tasks.runs import hold_models

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240.0
BIN = Path(sys.executable).parent
MODELS = [SMALL["models"][0], SMALL["models"][3]]
SLEEPER = """
import sys, time
from prefect import flow, tags
from schemas.settings import load_settings
from storage.configs import load_spec
from pathlib import Path
from tasks.runs import hold_models

@flow(name="elsewhere")
def elsewhere():
    spec = load_spec(Path(sys.argv[1]))
    with hold_models(spec.universe, spec.models, load_settings()):
        print("holding", flush=True)
        time.sleep(600)

with tags("factorcube"):
    elsewhere()
"""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


class Installation:
    """One served installation, and what a person does with it."""

    def __init__(self, folder: Path, webhook: str) -> None:
        self.folder, self.root, self.port = folder, folder / "root", free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "FACTORCUBE_"))},
            "FACTORCUBE_ROOT": str(self.root),
            "FACTORCUBE_CONFIGS": str(folder),
            "FACTORCUBE_WORKERS": "1",
            "FACTORCUBE_ALERT_WEBHOOK": webhook,
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "OMP_NUM_THREADS": "1",
        }
        self.output = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        return (self.root / "prefect" / "auth").read_text().strip()

    @property
    def client(self) -> dict[str, str]:
        """What the start tells to export in another terminal, and a home of its own."""
        home = str(self.folder / "client")
        return {"PREFECT_API_URL": self.api, "PREFECT_API_AUTH_STRING": self.password, "PREFECT_HOME": home}

    def start(self, *options: str) -> None:
        command = [str(BIN / "factorcube"), "serve", "--port", str(self.port), "--config", "config", *options]
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(lambda: self.ended() or "Ctrl-C stops everything" in self.output.read_text(), "the start")
        assert not self.ended(), self.output.read_text()

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def processes(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(BIN / "prefect"), *arguments],
            env={**self.environment, **self.client},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, method: str, path: str, body: Any = None) -> Any:
        def ask() -> httpx.Response | None:
            """None while SQLite is locked, for which Prefect waits a minute: its own client asks again, too."""
            try:
                user, word = self.password.split(":")
                answer = httpx.request(method, f"{self.api}/{path}", json=body, timeout=60.0, auth=(user, word))
            except httpx.ReadTimeout:
                return None
            return None if answer.status_code == 503 else answer

        answer = wait_for(ask, f"an answer to {path}")
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> str:
        return str(self.call("GET", f"deployments/name/{name}/{name}")["id"])

    def run(self, name: str, **parameters: Any) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid.uuid4())}
        return str(self.call("POST", f"deployments/{self.deployment(name)}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.call("GET", f"flow_runs/{run}")["state"])

    def end_of(self, run: str) -> dict[str, Any]:
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return wait_for(lambda: (state := self.state(run))["type"] in final and state, f"the end of {run}")

    def ended_runs(self, flow: str) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return list(self.call("POST", "flow_runs/filter", body))

    def latest(self, model: str) -> Path:
        return self.root / "published" / "small" / model / "latest"


@pytest.fixture(scope="module")
def alerts() -> Iterator[tuple[str, list[str]]]:
    """Take alerts on loopback; give the address, and what came."""
    came: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-path", came
    server.shutdown()


def write_prices(folder: Path, end: str) -> None:
    market = make_market().filter(pl.col("date") <= pl.lit(end).str.to_datetime())
    market.write_parquet(folder / "new.parquet")
    (folder / "new.parquet").replace(folder / "prices.parquet")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, alerts: tuple[str, list[str]]) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("served")
    write_prices(folder, "2016-11-30")
    write_config(folder, {"models": MODELS, "gate": {"min_total_r2": -1.0}})
    installation = Installation(folder, alerts[0])
    installation.start("--promote-first")
    yield installation
    if not installation.ended():
        assert installation.process is not None
        installation.process.send_signal(signal.SIGINT)
        installation.process.wait(120)


class Reader(threading.Thread):
    """Opens the latest version again and again, and checks that it is one version, whole."""

    def __init__(self, latest: Path) -> None:
        super().__init__(daemon=True)
        self.latest, self.seen, self.errors = latest, [], []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            try:
                self.read(self.latest.resolve())
            except Exception as error:  # noqa: BLE001  # whatever a reader meets is a failure of the promise
                self.errors.append(repr(error))
                return

    def read(self, version: Path) -> None:
        found = xr.open_zarr(version).load()
        manifest = json.loads((version / "manifest.json").read_text())
        assert str(found.date.values[-1])[:10] == found.attrs["as_of"] == manifest["as_of"] == version.name[:10]
        parts = found.portfolio_variance_systematic + found.portfolio_variance_specific
        np.testing.assert_allclose(found.portfolio_variance, parts, rtol=1e-12)
        if version.name not in self.seen:
            self.seen.append(version.name)


def test_nobody_else_gets_in(served: Installation) -> None:
    """Another user of the machine, a web page, and a page under a name that leads here get nothing from the server."""
    step = {
        "name": "x",
        "flow_id": str(uuid.uuid4()),
        "pull_steps": [{"prefect.deployments.steps.run_shell_script": {}}],
    }
    wrong = httpx.BasicAuth("factorcube", "0" * 64)
    for auth in (None, wrong):
        for method, path, body in (
            ("POST", "deployments/", step), ("POST", "flow_runs/filter", {}), ("GET", "admin/settings", None),
            ("POST", "block_documents/filter", {"include_secrets": True}), ("GET", "version", None),
        ):  # fmt: skip
            answer = httpx.request(method, f"{served.api}/{path}", json=body, auth=auth, timeout=60.0)
            assert (answer.status_code, answer.json()) == (401, {"exception_message": "Unauthorized"}), path
    inside = httpx.BasicAuth(*served.password.split(":"))
    asked = {"url": f"{served.api}/flow_runs/count", "json": {}, "auth": inside, "timeout": 60.0}
    own = f"http://127.0.0.1:{served.port}"
    assert httpx.post(**asked, headers={"Origin": own}).headers["access-control-allow-origin"] == own
    assert "access-control-allow-origin" not in httpx.post(**asked, headers={"Origin": "http://evil.example"}).headers
    for name in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example"):
        assert httpx.post(**asked, headers={"Host": name}).status_code == 400
        assert httpx.get(f"{own}/ui-settings", headers={"Host": name}, timeout=60.0).status_code == 400
    folder = served.root / "prefect"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("auth", "prefect.db", "server.log", "worker.log"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600, name


def test_a_command_without_the_password_is_told_where_it_lies(served: Installation) -> None:
    environment = {**served.environment, "PREFECT_API_URL": served.api, "PREFECT_HOME": str(served.folder / "client")}
    for command in (["run", "config.yaml"], ["deploy", "--config", "config"], ["doctor"]):
        done = subprocess.run(
            [str(BIN / "factorcube"), *command],
            env=environment, cwd=served.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == 1, command
        assert "refuses this client; set PREFECT_API_AUTH_STRING" in said, command
        assert f"{served.root}/prefect/auth" in said, command
        assert "Traceback" not in said


def test_one_ingest_brings_everything_to_be_published(served: Installation) -> None:
    shown = served.prefect("deployment", "run", "ingest/ingest")
    assert f"http://127.0.0.1:{served.port}/" in shown, "links lead to this server"
    shown_to_browsers = httpx.get(f"http://127.0.0.1:{served.port}/ui-settings", timeout=60.0).json()
    assert shown_to_browsers["api_url"] == served.api, "the UI asks this server, not the usual port"
    wait_for(lambda: served.ended_runs("retrain") and served.ended_runs("update"), "retrain and update to follow")
    names = {run["name"].split(" (")[0] for flow in ("ingest", "retrain", "update") for run in served.ended_runs(flow)}
    assert names == {"ingest small", "retrain small: market, ipca", "update small: market, ipca"}
    assert served.latest("ipca").resolve().name.startswith("2016-11-30")
    ordinary = served.folder / "made by this process"
    ordinary.touch()
    written = served.latest("ipca") / "manifest.json"
    assert written.stat().st_mode == ordinary.stat().st_mode, "what is published is no more closed than other files"


def test_new_data_reach_a_reader_that_keeps_reading(served: Installation) -> None:
    readers = [Reader(served.latest(model)) for model in ("market", "ipca")]
    for reader in readers:
        reader.start()
    write_prices(served.folder, "2016-12-16")
    retrains = len(served.ended_runs("retrain"))
    assert served.end_of(served.run("ingest"))["type"] == "COMPLETED"
    wait_for(lambda: len(served.ended_runs("retrain")) > retrains, "the retrain of a new month")
    wait_for(lambda: len(served.ended_runs("update")) > 1, "the update")
    write_prices(served.folder, "2016-12-20")
    assert served.end_of(served.run("ingest"))["type"] == "COMPLETED"
    for reader in readers:
        wait_for(lambda reader=reader: reader.errors or reader.seen[-1].startswith("2016-12-20"), "the update")
        reader.stopped.set()
        reader.join()
        assert not reader.errors
        assert reader.seen[0].startswith("2016-11-30")
    assert len(served.ended_runs("retrain")) == retrains + 1, "the month is new once"


def test_a_second_retrain_of_a_model_is_cancelled_and_says_who_holds_it(served: Installation) -> None:
    spec = load_spec(served.folder / "config.yaml")
    with hold_models("small", spec.models[1:], Settings(root=served.root)):
        state = served.end_of(served.run("retrain"))
    assert state["type"] == "CANCELLED"
    assert f"small/ipca is being retrained already by process {os.getpid()} of" in state["message"]


def test_a_killed_run_is_crashed_and_told_and_the_next_one_works(
    served: Installation, alerts: tuple[str, list[str]]
) -> None:
    lock = served.root / "locks" / "retrain.small.ipca"
    run = served.run("retrain", as_of="2016-11-15")
    holder = wait_for(lambda: lock.read_text().strip(), "the retrain to begin")
    os.kill(int(holder.split()[1]), signal.SIGKILL)
    assert served.end_of(run)["type"] == "CRASHED"
    again = served.end_of(served.run("retrain", as_of="2016-11-15"))
    assert again["type"] == "COMPLETED", again["message"]
    wait_for(lambda: any("Crashed" in text for text in alerts[1]), "the alert")


def test_a_schedule_starts_runs(served: Installation) -> None:
    path = f"deployments/{served.deployment('update')}/schedules"
    schedule = {"schedule": {"interval": 20}, "active": True}
    (made,) = served.call("POST", path, [schedule])
    done = wait_for(
        lambda: [run for run in served.ended_runs("update") if run["auto_scheduled"]], "the scheduled update"
    )
    served.call("DELETE", f"{path}/{made['id']}")
    assert done[0]["name"].startswith("update small: market, ipca (")


def test_a_run_that_falls_silent_without_a_worker_is_crashed_and_its_lock_is_free(served: Installation) -> None:
    environment = {**served.environment, **served.client, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    config = served.folder / "config.yaml"
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(config)], env=environment, stdout=subprocess.PIPE, cwd=served.folder
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"holding\n"
    (run,) = served.call("POST", "flow_runs/filter", {"flows": {"name": {"any_": ["elsewhere"]}}})
    time.sleep(2)  # the first heartbeat goes out when the run begins; nobody can see when it has arrived
    process.kill()
    process.wait()
    with hold_models("small", load_spec(config).models, Settings(root=served.root)):
        assert served.state(run["id"])["type"] == "RUNNING", "nobody has noticed yet, and the lock is free already"
    state = served.end_of(run["id"])
    assert state["type"] == "CRASHED"
    assert "No heartbeat" in state["message"]


def test_webhook_and_password_are_in_no_log_and_on_no_command_line(served: Installation) -> None:
    said = {log.name: log.read_text(errors="replace") for log in (served.root / "prefect").glob("*.log")}
    said["serve.log"] = served.output.read_text()
    said["command lines"] = " ".join(word for process in served.processes() for word in process.cmdline())
    assert len(said) == 4
    for where, text in said.items():
        assert "secret-path" not in text, where
        assert served.password.split(":")[1] not in text, where


def test_it_stops_cleanly_in_the_middle_of_a_run_and_starts_again_on_the_same_database(served: Installation) -> None:
    lock = served.root / "locks" / "retrain.small.ipca"
    run = served.run("retrain", as_of="2016-10-31")
    wait_for(lambda: lock.read_text().strip(), "the retrain to begin")
    before = served.processes()
    assert served.process is not None
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(120) == 0
    assert psutil.wait_procs(before, timeout=10)[1] == []
    served.start()
    assert served.state(run)["type"] in {"CRASHED", "CANCELLED"}, "a run that was stopped is not left running"
    assert served.end_of(served.run("retrain", as_of="2016-10-31"))["type"] == "COMPLETED"


def test_a_taken_port_and_a_served_root_are_one_message(served: Installation) -> None:
    for port, message in ((served.port, "still held by process"), (free_port(), "still held by process")):
        done = subprocess.run(
            [str(BIN / "factorcube"), "serve", "--port", str(port)],
            env=served.environment, cwd=served.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    other = {**served.environment, "FACTORCUBE_ROOT": str(served.folder / "other")}
    done = subprocess.run(
        [str(BIN / "factorcube"), "serve", "--port", str(served.port)],
        env=other, cwd=served.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is taken by another process; stop it, or choose another with --port" in done.stderr


@pytest.mark.parametrize("part", ["server", "worker"])
def test_if_a_part_dies_everything_ends_and_says_so(served: Installation, part: str) -> None:
    if served.ended():
        served.start()
    before = served.processes()
    (victim,) = [process for process in before if part in " ".join(process.cmdline()[3:4])]
    victim.kill()
    assert served.process is not None
    assert served.process.wait(120) == 1
    assert psutil.wait_procs(before, timeout=10)[1] == []
    assert f"the Prefect {part} ended with status -9" in served.output.read_text()
