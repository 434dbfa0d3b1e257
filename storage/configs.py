"""Config files: the YAML documents that hold run specs, and the folder in which deployments name them.

Here belong finding and reading them, and nothing that says what they may hold: that is `schemas.spec`.
"""

from __future__ import annotations

import re
from pathlib import Path

from schemas.base import nearest
from schemas.errors import ConfigError
from schemas.spec import RunSpec
from storage.documents import read_document

_SUFFIX = ".yaml"
_CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def load_spec(path: Path) -> RunSpec:
    """Read a run spec from a YAML file (safe tags only); relative data paths are taken from the file's folder.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or does not validate; the message names the file, and the line or the key.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping with keys such as universe, data, models")
    return RunSpec.parse(document, origin=str(path)).resolved(path.parent)


def config_names(folder: Path) -> list[str]:
    """Names of the config files of a folder, without their suffix; none if there is no such folder."""
    return sorted(path.stem for path in folder.glob(f"*{_SUFFIX}") if _CONFIG_NAME.fullmatch(path.stem))


def load_config(name: str, folder: Path) -> RunSpec:
    """Read the spec that a name stands for, from the folder of configs and nowhere else.

    Parameters
    ----------
    name : str
        Name of a config file, with or without ``.yaml``.
    folder : Path
        `Settings.configs`.

    Raises
    ------
    ConfigError
        If the name is a path, leads out of the folder through a symbolic link, or there is no such file.
    """
    stem = name.removesuffix(_SUFFIX)
    if not _CONFIG_NAME.fullmatch(stem):
        raise ConfigError(f"config {name!r} is not a name: give the name of a file in {folder}, without its folder")
    path = folder / f"{stem}{_SUFFIX}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"config '{stem}': a symbolic link leads outside {folder}; put the file itself there")
    if not path.exists():
        raise ConfigError(
            f"there is no config '{stem}' in {folder} (FACTORCUBE_CONFIGS); {nearest(stem, config_names(folder))}"
        )
    return load_spec(path)
