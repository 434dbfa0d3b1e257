"""Importing factorcube changes nothing that is one for the whole process, in the libraries or in the environment."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "storage", "models", "reporting", "tasks", "flows", "deploy")

STATE = """
import importlib, os, sys
from copy import deepcopy
import great_expectations, matplotlib, numpy, pandas, pandera.xarray, polars, prefect, sklearn, torch, xarray, zarr

def state():
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "MKL_CBWR"},  # models.blas
        "numpy": numpy.geterr(),
        "xarray": dict(xarray.get_options()),
        "zarr": deepcopy(zarr.config.config),
        "matplotlib": dict(matplotlib.rcParams),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()),
    }

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = state()
changed = [name for name in before if before[name] != after[name]]
sys.exit(f"changed: {changed}" if changed else 0)
"""


@pytest.mark.slow
def test_no_module_changes_a_library_for_the_whole_process():
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    ended = subprocess.run(
        [sys.executable, "-c", STATE, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
