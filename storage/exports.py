"""A published version as long tables, for people without Python: Parquet or CSV files, or one DuckDB file.

Here belongs which tables there are, and writing them whole or not at all. Finding and opening versions is
`storage.versions`. What variables mean is `schemas.contracts`, which the table `variables` repeats.

=================  ============================  =====================================================================
table              a row for each                columns beside these
=================  ============================  =====================================================================
loadings           date, ticker, factor          loadings
factor_returns     date, factor                  factor_returns
omega              date, factor, factor_         omega
stocks             date, ticker                  specific_variance, imputed, expected_returns, ...
weights            portfolio, date, ticker       weights
portfolios         portfolio, date               portfolio_variance, its parts, portfolio_return, qlike, ...
portfolio_factors  portfolio, date, factor       portfolio_variance_factor, portfolio_exposure, attribution_factor
ranks              rank, date                    variance_ratio_by_rank
dates              date                          total_r2, predictive_r2, out_of_sample, ...
last_fit_...       the axes in its name          statistics of the last fit, such as premia
variables          variable                      in which table it is, its units, what it is, what missing means
version            fact                          universe, model, as-of date, snapshot and the like
=================  ============================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import xarray as xr

from schemas.errors import ExecutionError, PublishError
from schemas.statistics import version_contract
from storage.duck import connected
from storage.files import place, staging

ExportFormat = Literal["parquet", "csv", "duckdb"]

_ROWS = 2**20
"""Most rows of a table in memory, unless one date has more."""
_NAMES = {
    ("date", "ticker", "factor"): "loadings",
    ("date", "factor"): "factor_returns",
    ("date", "factor", "factor_"): "omega",
    ("date", "ticker"): "stocks",
    ("portfolio", "date", "ticker"): "weights",
    ("portfolio", "date"): "portfolios",
    ("portfolio", "date", "factor"): "portfolio_factors",
    ("rank", "date"): "ranks",
    ("date",): "dates",
}
_FACTS = "version"
_OLD_TYPES = pl.CompatLevel.oldest()
"""Strings that every reader of Arrow and Parquet knows."""


def export(dataset: xr.Dataset, out: Path, form: ExportFormat, *, replace: bool = False) -> list[str]:
    """Write a version as long tables, whole or not at all; a million rows are in memory at a time.

    Parameters
    ----------
    dataset : xarray.Dataset
        A published version, as `storage.published.open_version` opens it.
    out : Path
        Folder of Parquet or CSV files, one for each table, or the DuckDB file. Missing numbers are null, and empty in
        CSV; a row whose numbers are all missing is left out.
    form : {"parquet", "csv", "duckdb"}
        What to write.
    replace : bool
        Replace an earlier export there; anything else there is never replaced.

    Returns
    -------
    list of str
        Names of the tables.

    Raises
    ------
    PublishError
        If something is there already, and must stay.
    CorruptionError
        If a chunk of the version is damaged.
    ConfigError
        If DuckDB is asked for and is not installed.
    ExecutionError
        If it cannot be written; what was there stays.
    """
    out = out.absolute()
    _refuse_other(out, form, replace=replace)
    try:
        with staging(out.parent) as folder:
            made = folder / "export"
            with _Database(made) if form == "duckdb" else _Files(made, form) as writer:
                tables = _write(dataset, writer)
            _refuse_other(out, form, replace=replace)
            _move(made, out, folder / "before")
    except OSError as error:
        raise ExecutionError(f"{out}: cannot be written: {error.strerror or error}; nothing has changed") from error
    return tables


def _write(dataset: xr.Dataset, writer: _Files | _Database) -> list[str]:
    tables = _tables(dataset)
    for name, part in tables.items():
        for block in _blocks(part):
            writer.add(name, _long(block))
    writer.add("variables", _described(tables))
    writer.add(_FACTS, _strings(fact=dataset.attrs, value=dataset.attrs.values()))
    writer.commit()
    return [*tables, "variables", _FACTS]


def _tables(dataset: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the variables that the contract knows by the table that their axes put them in."""
    found: dict[str, list[str]] = {}
    for variable, known in version_contract(dataset).items():
        if variable in dataset:
            found.setdefault(_NAMES.get(known.dims) or "_".join(("last_fit", *known.dims)), []).append(variable)
    return {name: dataset[variables] for name, variables in found.items()}


def _blocks(part: xr.Dataset) -> Iterator[xr.Dataset]:
    """Cut a table into spans of dates, a power of two long, which meet the borders of chunks."""
    dates = part.sizes.get("date", 0)
    if not dates:
        yield part.load()
        return
    rows = max(1, _ROWS * dates // np.prod([*part.sizes.values()], dtype=int))
    span = 2 ** (int(rows).bit_length() - 1)
    for start in range(0, dates, span):
        yield part.isel(date=slice(start, start + span)).load()


def _long(block: xr.Dataset) -> pa.Table:
    """Return a block with a column for each axis and each variable, and a row for each cell where one is known."""
    axes = next(iter(block.data_vars.values())).dims
    shape = [block.sizes[axis] for axis in axes]
    columns = {}
    for axis, codes in zip(axes, np.indices(shape, dtype=np.uint32, sparse=True), strict=True):
        labels = block[axis].values
        column = pl.Series(labels.astype("datetime64[D]") if axis == "date" else labels)
        columns[str(axis)] = column.gather(np.broadcast_to(codes, shape).ravel())
    values = {str(name): pl.Series(array.values.ravel(), nan_to_null=True) for name, array in block.data_vars.items()}
    rows = pl.DataFrame(columns | values)
    return rows.filter(pl.any_horizontal(pl.col(*values).is_not_null())).to_arrow(compat_level=_OLD_TYPES)


def _described(tables: Mapping[str, xr.Dataset]) -> pa.Table:
    known = [
        (table, str(name), array.attrs) for table, part in tables.items() for name, array in part.data_vars.items()
    ]
    attrs = {key: [facts.get(key, "") for _, _, facts in known] for key in ("units", "long_name", "comment")}
    return _strings(variable=[name for _, name, _ in known], table=[table for table, _, _ in known], **attrs)


def _strings(**columns: Any) -> pa.Table:
    return pa.table({name: pa.array([str(value) for value in values], pa.string()) for name, values in columns.items()})


class _Files(ExitStack):
    """A folder with a file for each table."""

    def __init__(self, folder: Path, suffix: str) -> None:
        super().__init__()
        folder.mkdir()
        self._folder, self._suffix = folder, suffix
        self._open: dict[str, Any] = {}

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows to a table, which the first of them makes."""
        if table not in self._open:
            path = self._folder / f"{table}.{self._suffix}"
            self._open[table] = self.enter_context(
                pa.parquet.ParquetWriter(path, rows.schema, compression="zstd")
                if self._suffix == "parquet"
                else pa.csv.CSVWriter(path, rows.schema)
            )
        self._open[table].write_table(rows)

    def commit(self) -> None:
        """Keep what was added: files are whole when they are closed."""


class _Database(ExitStack):
    """A DuckDB file with all tables, in one transaction."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._connection = self.enter_context(connected(file, refused=ExecutionError))
        self._connection.begin()
        self._known: set[str] = set()

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows to a table, which the first of them makes."""
        self._connection.register("rows_to_add", rows)
        how = f'INSERT INTO "{table}"' if table in self._known else f'CREATE TABLE "{table}" AS'
        self._connection.execute(f"{how} SELECT * FROM rows_to_add")  # noqa: S608  # a table is called by its axes
        self._connection.unregister("rows_to_add")
        self._known.add(table)

    def commit(self) -> None:
        """Keep what was added."""
        self._connection.commit()


def _refuse_other(out: Path, form: ExportFormat, *, replace: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not replace:
        raise PublishError(f"{out}: is there already; choose another --out, or replace it with --force")
    if out.is_symlink() or not (_is_database(out) if form == "duckdb" else _is_folder(out, f".{form}")):
        raise PublishError(f"{out}: is no earlier export as {form}, and stays as it is; choose another --out")


def _is_database(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(12)[8:] == b"DUCK"


def _is_folder(folder: Path, suffix: str) -> bool:
    """Whether a folder holds an export and nothing else."""
    found = list(folder.iterdir()) if folder.is_dir() else []
    return f"{_FACTS}{suffix}" in {one.name for one in found} and all(one.suffix == suffix for one in found)


def _move(made: Path, out: Path, before: Path) -> None:
    """Put what was made where it belongs; a folder that it replaces is put back if that fails."""
    if out.is_dir():
        out.rename(before)
    try:
        if not place(made, out):
            raise PublishError(f"{out}: somebody else has written there; choose another --out")
    except BaseException:
        if before.exists() and not out.exists():
            before.rename(out)
        raise
