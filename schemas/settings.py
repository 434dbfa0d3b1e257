"""Where factorcube runs: folders, the Dask scheduler, sizes. What is computed belongs in `schemas.spec` instead.

Settings come from the environment (``FACTORCUBE_ROOT=...``), never from a config file, and are read when a run starts,
never at import. No setting changes a number: the same spec gives the same version under any settings.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.base import nearest
from schemas.errors import ConfigError

PREFIX = "FACTORCUBE_"


class Settings(BaseSettings):
    """Settings of one installation, read from ``FACTORCUBE_...`` environment variables.

    Attributes
    ----------
    root : Path
        Folder of everything that is written: cubes, published versions, work, quarantine, reports.
    dask_scheduler : str or None
        Address of an existing scheduler (``tcp://host:port``); None starts a `LocalCluster` for the run.
    workers : int
        Worker processes of the `LocalCluster`, one thread each: torch and BLAS run one-threaded side by side.
    worker_memory_bytes : int
        Memory limit of one worker of the `LocalCluster`.
    block_dates : int
        Dates per block when a panel is built or read; bounds the memory of one step.
    sql_url : SecretStr or None
        SQLAlchemy URL for sources of kind ``sql``; it may hold a password, so it lives in the environment only.
    """

    model_config: SettingsConfigDict = SettingsConfigDict(  # type: ignore[misc]  # pydantic-settings' own idiom
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True
    )

    root: Path = Path("data")
    dask_scheduler: str | None = Field(default=None, pattern=r"^(tcp|tls|ucx|ws|wss|inproc)://")
    workers: int = Field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 8)), ge=1)
    worker_memory_bytes: int = Field(default=2 * 2**30, ge=2**28)
    block_dates: int = Field(default=256, ge=1)
    sql_url: SecretStr | None = None

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: Path) -> Path:
        return root.expanduser().absolute()


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
