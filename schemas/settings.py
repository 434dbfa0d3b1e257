"""Where factorcube runs: folders, the Dask scheduler, sizes. What is computed belongs in `schemas.spec` instead.

Settings come from the environment (``FACTORCUBE_ROOT=...``), never from a config file, and are read when a run starts,
never at import. No setting changes a number: the same spec gives the same version under any settings.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.addresses import check_address
from schemas.base import Name, nearest
from schemas.errors import ConfigError
from schemas.stores import SCHEMES, parse_store, parse_work

PREFIX = "FACTORCUBE_"


class Settings(BaseSettings):
    """Settings of one installation, read from ``FACTORCUBE_...`` environment variables.

    Attributes
    ----------
    root : Path
        Folder of everything that is written: cubes, published versions, work, quarantine, reports.
        Cubes and published versions lie elsewhere if `store` says so, intermediate results also if `work` does.
    allowed_schemes : tuple[str, ...]
        Schemes that `store` and `work` may have, as a JSON list.
    store : str or None
        URL of cubes and published versions: ``s3://bucket/prefix`` or ``file:///folder``; None means `root`.
        Where an S3 store is and who may use it comes from the usual ``AWS_...`` variables, or from `store_block`.
    work : str or None
        URL of intermediate results, ``s3://bucket/prefix``, for Dask workers that share no disk: each keeps in its own
        `root` what it has made or fetched. None means that all of them share `root`.
    store_block : str or None
        Name of a Prefect `Secret` block whose value is a mapping of such ``AWS_...`` variables.
    configs : Path
        Folder of the config files that deployments name; a deployment cannot name a file outside it.
    dask_scheduler : str or None
        Address of an existing scheduler (``tls://host:port``); None starts a `LocalCluster` for the run.
    allow_plain_scheduler : str or None
        Address of the one scheduler that may be neither on loopback nor behind TLS; it must be `dask_scheduler` itself.
    dask_tls_ca, dask_tls_cert, dask_tls_key : Path or None
        PEM files for a scheduler behind TLS.
    workers : int
        Worker processes of the `LocalCluster`, one thread each: torch and BLAS run one-threaded side by side.
    worker_memory_bytes : int
        Memory limit of one worker of the `LocalCluster`.
    block_dates : int
        Dates per block when a panel is built or read; bounds the memory of one step.
    sql_url : SecretStr or None
        SQLAlchemy URL for sources of kind ``sql``; it may hold a password, so it lives in the environment only.
    alert_webhook : SecretStr or None
        URL that automations post alerts to; alerts stay in Prefect's log of events without it.
    champion_max_age : int
        Sessions by which a champion may lag behind its cube before an alert says so.
    max_cells : int
        Most cells (dates x tickers x columns) that a source may hold; more are refused before memory is taken. A cell
        of text takes some 40 bytes while it is read, a number 8.
    """

    model_config: SettingsConfigDict = SettingsConfigDict(  # type: ignore[misc]  # pydantic-settings' own idiom
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True
    )

    root: Path = Path("data")
    allowed_schemes: tuple[str, ...] = SCHEMES
    store: str | None = None
    work: str | None = None
    store_block: Name | None = None
    configs: Path = Path("configs")
    dask_scheduler: str | None = Field(default=None, pattern=r"^(tcp|tls)://")
    allow_plain_scheduler: str | None = None
    dask_tls_ca: Path | None = None
    dask_tls_cert: Path | None = None
    dask_tls_key: Path | None = None
    workers: int = Field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 8)), ge=1)
    worker_memory_bytes: int = Field(default=3 * 2**30, ge=2**28)
    block_dates: int = Field(default=256, ge=1)
    sql_url: SecretStr | None = None
    alert_webhook: SecretStr | None = None
    champion_max_age: int = Field(default=5, ge=1)
    max_cells: int = Field(default=10**9, ge=1)

    @field_validator("store")
    @classmethod
    def _openable(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None:
            parse_store(url, info.data.get("allowed_schemes", ()))
        return url

    @field_validator("work")
    @classmethod
    def _shareable(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None:
            parse_work(url, info.data.get("allowed_schemes", ()))
        return url

    @field_validator("alert_webhook")
    @classmethod
    def _reachable(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            check_address(url.get_secret_value(), f"{PREFIX}ALERT_WEBHOOK")
        return url

    @field_validator("root", "configs")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        return folder.expanduser().absolute()


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises
    ------
    ConfigError
        If a ``FACTORCUBE_...`` variable is unknown or has a bad value.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            raise ConfigError(f"environment: unknown setting {variable} ({nearest(variable, sorted(known))})")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"environment: {name}: {first['msg']}") from None
