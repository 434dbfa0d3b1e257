"""Registering with a Prefect server: the work pool, its queues, the deployments of prefect.yaml and the automations.

All of it may be done again at any time: what is there is updated. The server is that of PREFECT_API_URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings
from storage.configs import config_names, load_config

CHECKOUT = Path(__file__).resolve().parents[1]
"""Folder that the entry points of prefect.yaml are relative to, and that runs are started in."""

PREFECT_FILE = CHECKOUT / "deploy" / "prefect.yaml"

POOL = "factorcube"

QUEUES = {"daily": (1, 2), "retrain": (2, 2), "backfill": (3, 1)}
"""Work queues: priority (1 is served first) and how many runs of it may run at once."""

HEARTBEAT_SECONDS = 30
"""How often a flow run says that it is alive: PREFECT_FLOWS_HEARTBEAT_FREQUENCY of whoever runs flows."""

POOL_LIMIT = 4
"""How many runs may run at once on one work pool."""


def declared(config: str | None = None, *, promote_first: bool = False) -> dict[str, Any]:
    """Read prefect.yaml, with another default config, or another answer to whether first versions are promoted.

    Parameters
    ----------
    config : str or None
        Name of the config that deployments run without being told; that of the file if None.
    promote_first : bool
        Whether `retrain` promotes the first version of a model that passes the gate.
    """
    document: dict[str, Any] = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    for deployment in document["deployments"]:
        parameters = deployment.setdefault("parameters", {})
        if config is not None and "spec" in parameters:
            parameters["spec"] = config
        if promote_first and "promote_first" in parameters:
            parameters["promote_first"] = True
    return document


def deploy_all(settings: Settings, config: str | None = None, *, promote_first: bool = False) -> list[str]:
    """Register everything; configs are those of `settings.configs`.

    Returns
    -------
    list[str]
        The deployments as ``prefect deployment run`` names them.

    Raises
    ------
    ConfigError
        If the default config is not there or is not valid.
    ExecutionError
        If the server refuses a deployment; the message is that of Prefect.
    """
    from deploy.automations import apply_automations

    document = declared(config, promote_first=promote_first)
    _check_configs(document, settings.configs)
    _create_pool()
    with tempfile.TemporaryDirectory(prefix="factorcube-") as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
            cwd=CHECKOUT,
            env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[-800:]
        raise ExecutionError(f"the Prefect server did not take the deployments: {reason}")
    apply_automations(settings)
    return [f"{name}/{name}" for name in (deployment["name"] for deployment in document["deployments"])]


def _check_configs(document: dict[str, Any], folder: Path) -> None:
    """Refuse a default config that runs could not read later."""
    for name in {one["parameters"]["spec"] for one in document["deployments"] if "spec" in one["parameters"]}:
        if not config_names(folder):
            raise ConfigError(f"{folder}: there is no config file in it; set FACTORCUBE_CONFIGS to a folder with some")
        load_config(name, folder)


def _create_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
            client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=POOL_LIMIT))
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", concurrency_limit=POOL_LIMIT))
        for name, (priority, limit) in QUEUES.items():
            try:
                queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
            except ObjectNotFound:
                queue = client.create_work_queue(name, work_pool_name=POOL)
            client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)
