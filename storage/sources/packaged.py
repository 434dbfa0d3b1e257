"""Datasets that ship inside installed packages, as an origin: real data that anybody has.

The data file of the installed distribution is read directly. Importing the package would give the same rows,
but loads its solvers first, which takes seconds.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import polars as pl

from schemas.contracts import SourceFile
from schemas.errors import SourceError


@dataclass(frozen=True)
class _Dataset:
    package: str
    file: str
    decompress: Callable[[bytes], bytes]


_DATASETS = {
    "skfolio_sp500": _Dataset("skfolio", "skfolio/datasets/data/sp500_dataset.csv.gz", gzip.decompress),
    "skfolio_factors": _Dataset("skfolio", "skfolio/datasets/data/factors_dataset.csv.gz", gzip.decompress),
    "french": _Dataset("linearmodels", "linearmodels/datasets/french/french.csv.bz2", bz2.decompress),
}


class PackageOrigin:
    """One dataset of an installed package.

    Parameters
    ----------
    name : {"skfolio_sp500", "skfolio_factors", "french"}
        ``skfolio_sp500``: adjusted closes of 20 S&P 500 stocks, daily 1990-2022, column ``Date``.
        ``skfolio_factors``: prices of five factor ETFs, daily 2014-2022, column ``Date``. ``french``:
        Fama-French factors, RF, 12 industries and 18 sorted portfolios, decimals, monthly 1949-2017, column
        ``dates`` (first of the month).

    Raises
    ------
    SourceError
        If the package is not installed, or no longer ships the dataset.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._dataset = _DATASETS[name]
        try:
            installed = distribution(self._dataset.package)
            self._bytes = Path(str(installed.locate_file(self._dataset.file))).read_bytes()
        except (PackageNotFoundError, OSError):
            raise SourceError(f"dataset {name}: install the package {self._dataset.package}, which ships it") from None
        self._version = installed.version

    def read(self) -> dict[str, pl.LazyFrame]:
        """Return the rows; all columns are text."""
        rows = pl.read_csv(self._dataset.decompress(self._bytes), infer_schema=False)
        return {f"dataset {self._name}": rows.lazy()}

    def fingerprint(self) -> tuple[SourceFile, ...]:
        """Return the version of the package with the name of the data file, and the SHA-256 of its bytes."""
        label = f"{self._dataset.package}-{self._version}/{Path(self._dataset.file).name}"
        return (SourceFile(name=label, sha256=hashlib.sha256(self._bytes).hexdigest()),)
