"""How labelled arrays become Zarr: one chunking, one codec, one form of labels for cubes, work and versions.

Here belongs what all stores share. What a store promises (one commit, one rename) belongs to that store.

Chunks hold whole cross-sections, because everything that reads them (a panel, a regression per date, a risk number)
takes all stocks of a span of dates. The span is a power of two, so that blocks of 64 or 256 dates meet chunk
borders, and as long as a chunk stays within 4 MiB. Measured on one busy core with 1,259 dates x 505 stocks x
16 characteristics of real prices and 400 x 5,000 x 16 simulated: chunks of 2 to 8 MiB read and write alike
(200-600 MB/s), 32 MiB ones read a block of 64 dates half as fast, and adding one date to the last chunk costs
10 ms and 0.3-1 MB instead of 40-90 ms and 7-20 MB of new objects. The price is the history of one stock,
which reads every chunk: ask for few stocks rarely.

What an ingest reads both ways, some tickers over all dates and all tickers of some dates, is cut along tickers as well,
into tiles of 256 x 256 (ADR 0027). A market of 4,000 dates x 4,500 tickers with 15 % of its cells filled has 288 tiles
of a variable, 512 KiB each before they are packed. Chunks in which nothing was written are no files.

zstd level 1 gave the same size as level 3 (83 % of raw for real characteristics: noise does not compress) at
twice the speed of writing. Its checksum makes a flipped bit an error instead of a number. What is only kept to save
time, and read again and again, is compressed by lz4 on shuffled bytes instead, with a CRC for a checksum: it reads and
writes two to four times as fast, and takes a tenth more for characteristics, two fifths for loadings on industries.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from schemas.errors import AlignmentError
from storage.damage import Guard, GuardedStore, naming

CHUNK_BYTES = 4 * 2**20
MAX_CHUNK_DATES = 256
_BLOCK_BYTES, _MOST_DATES = 32 * 2**20, 4096
"""Of what goes through memory at a time: a small universe has few blocks, since each costs as much as a large one."""
TILE_TICKERS, TILE_DATES = 256, 64
"""Of what is read by blocks of tickers and by spans of dates alike: tickers of a chunk, and dates that hold whole ones
however many characteristics there are."""
LABEL_CHUNK = 16384
"""Labels per chunk: the labels of an axis are nearly always one chunk."""
COMPRESSOR = ZstdCodec(level=1, checksum=True)
FAST_COMPRESSORS: tuple[BytesBytesCodec, ...] = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())
FLAT = {"name": "default", "separator": "."}
"""Chunks of an array as files of one folder: with a folder for each, those would take more room than a day's rows."""
DATE_ENCODING = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}

LABEL_ATTRS: dict[str, dict[str, str]] = {
    "date": {
        "standard_name": "time",
        "long_name": "as-of date",
        "comment": "What stands at a date was known at its close.",
    },
    "ticker": {"long_name": "security", "comment": "The axis only grows and keeps its order."},
    "char": {"long_name": "characteristic"},
    "factor": {"long_name": "factor"},
    "factor_": {"long_name": "factor, second axis of omega"},
    "portfolio": {"long_name": "portfolio"},
    "observed_factor": {"long_name": "observed factor"},
    "rank": {"long_name": "ranks of eigenportfolios, from the largest variance down"},
    "level": {"long_name": "place from the 1% to the 99% quantile of a characteristic"},
    "penalty": {"long_name": "position along the path of penalties"},
    "industry_name": {"long_name": "industry", "comment": "The axis only grows and keeps its order."},
}


def chunk_shape(
    dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int, *, room: bool = False, tiles: bool = False
) -> tuple[int, ...]:
    """Choose the chunks of an array: whole cross-sections of a span of dates.

    Parameters
    ----------
    dims, shape : tuple
        Dimensions and their present sizes; the size along `date` does not matter.
    itemsize : int
        Bytes of one value.
    room : bool
        Leave room for a quarter more tickers, so that new ones rarely start a second row of chunks. Unused
        room is padding, which compresses to nothing.
    tiles : bool
        Cut the tickers too, so that some can be read over all dates at the cost of what is read.
    """
    sizes = {dim: max(1, size) for dim, size in zip(dims, shape, strict=True)}
    if room and "ticker" in sizes:
        sizes["ticker"] = 64 * math.ceil(1.25 * sizes["ticker"] / 64)
    if tiles and "ticker" in sizes:
        sizes["ticker"] = TILE_TICKERS
    if "portfolio" in sizes:
        sizes["portfolio"] = 1
    if "date" in sizes:
        row = itemsize * math.prod(size for dim, size in sizes.items() if dim != "date")
        span = max(1, CHUNK_BYTES // row)
        most = TILE_DATES if tiles and len(sizes) > 2 else MAX_CHUNK_DATES
        sizes["date"] = min(most, 2 ** (span.bit_length() - 1))
    return tuple(sizes[dim] for dim in dims)


def fill_value(dtype: np.dtype[Any]) -> Any:
    """Return what a cell holds that was never written: NaN, False, or -1 for a code."""
    return dtype.type({"f": np.nan, "i": -1}.get(dtype.kind, 0))


def same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two numeric arrays of one dtype are the same bit for bit: NaN equals NaN, 0.0 does not equal -0.0."""
    bits = f"u{one.dtype.itemsize}"
    return bool(np.array_equal(np.ascontiguousarray(one).view(bits), np.ascontiguousarray(other).view(bits)))


def dates_at_once(row_bytes: float) -> int:
    """Return how many dates of so many bytes each go through memory at a time: whole chunks, and at least one."""
    chunk_bytes = MAX_CHUNK_DATES * max(1.0, row_bytes)
    return min(_MOST_DATES, MAX_CHUNK_DATES * max(1, int(_BLOCK_BYTES / chunk_bytes)))


def date_blocks(dataset: xr.Dataset) -> Iterator[xr.Dataset]:
    """Cut a dataset, lazy or not, into consecutive spans of dates; itself if it has no dates."""
    n_dates = dataset.sizes.get("date", 0)
    if not n_dates:
        yield dataset
        return
    size = dates_at_once(dataset.nbytes / n_dates)
    for start in range(0, n_dates, size):
        yield dataset.isel(date=slice(start, start + size))


def write_dataset(
    folder: Path,
    blocks: Iterable[xr.Dataset],
    *,
    attrs: Mapping[str, Any] | None = None,
    consolidated: bool = False,
    compressors: tuple[BytesBytesCodec, ...] = (COMPRESSOR,),
    tiles: bool = False,
) -> None:
    """Write consecutive blocks along `date` as one plain Zarr v3 group, one block in memory at a time.

    Not atomic: `folder` must be one that no reader knows yet.

    Parameters
    ----------
    folder : Path
        An existing folder.
    blocks : iterable of xarray.Dataset
        Spans of dates in order. Variables without `date` are taken from the first one.
    attrs : mapping, optional
        Attributes of the dataset; those of the first block if left out.
    consolidated : bool
        Whether to gather the metadata in one file, so that opening costs one read.
    compressors : tuple of zarr.abc.codec.BytesBytesCodec
        Of arrays of numbers; labels and dates have `COMPRESSOR`.
    tiles : bool
        As for `chunk_shape`.

    Raises
    ------
    AlignmentError
        If there is no block, or a block does not continue the one before: its dates are not after it, or its
        other labels or variables differ.
    """
    before: xr.Dataset | None = None
    for raw in blocks:
        block = raw.compute().drop_encoding()
        block.attrs = dict(block.attrs if attrs is None else attrs)  # each append writes them anew
        if before is None:
            _write_first(folder, block, compressors, tiles)
        else:
            _refuse_gap(before, block)
            timeless = [name for name, variable in block.variables.items() if "date" not in variable.dims]
            block.drop_vars(timeless).to_zarr(folder, append_dim="date", consolidated=False)
        before = block
    if before is None:
        raise AlignmentError("there is nothing to write: no block of dates was given")
    if consolidated:
        consolidate(str(folder))


def consolidate(store: Any) -> None:
    """Gather the metadata of a Zarr v3 group in one file; `store` as Zarr takes it."""
    with warnings.catch_warnings():  # zarr's warning that other readers may not know it in v3
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store, zarr_format=3)


class SideBySide:
    """Blocks that follow one another along an axis other than `date`, on disk while a process looks at them.

    Of blocks written by tickers, spans of dates can be read. Nothing is promised to other processes.

    Parameters
    ----------
    folder : Path
        Is made.
    dim : str
        The axis, which all variables have.
    """

    def __init__(self, folder: Path, dim: str) -> None:
        self._folder, self._dim, self._size = folder, dim, 0
        self._labels: dict[str, xr.DataArray] = {}
        self._group = zarr.open_group(folder, mode="w-", zarr_format=3)

    def add(self, block: xr.Dataset) -> None:
        """Write the block that follows; it has all dates, and the same variables as those before."""
        start, stop = self._size, self._size + block.sizes.get(self._dim, 0)
        for name, array in block.data_vars.items():
            dims = tuple(map(str, array.dims))
            at = dims.index(self._dim)
            if not start:
                self._create(str(name), dims, array)
            target: Any = self._group[str(name)]
            target.resize((*array.shape[:at], stop, *array.shape[at + 1 :]))
            target[(slice(None),) * at + (slice(start, stop),)] = array.values
        self._labels = {str(dim): block[str(dim)] for dim in block.dims if dim in block.coords and dim != self._dim}
        self._size = stop

    def open(self) -> xr.Dataset:
        """Open all blocks lazily, with the labels of the other axes."""
        guard = Guard(str(self._folder), "is the disk sound?")
        return read_dataset(self._folder, guard=guard).assign_coords(self._labels)

    def _create(self, name: str, dims: tuple[str, ...], array: xr.DataArray) -> None:
        cut = tuple("ticker" if dim == self._dim else dim for dim in dims)
        self._group.create_array(
            name,
            shape=array.shape,
            chunks=chunk_shape(cut, array.shape, array.dtype.itemsize, tiles=True),
            dtype=array.dtype,
            fill_value=fill_value(array.dtype),
            compressors=FAST_COMPRESSORS,
            dimension_names=dims,
        )


def read_dataset(
    store: Any, *, guard: Guard | None = None, consolidated: bool = False, group: str | None = None
) -> xr.Dataset:
    """Open a Zarr group lazily, with labels as plain numpy strings; damage is told as `guard` says, whenever it is met.

    Parameters
    ----------
    store : zarr.abc.store.Store, Path or str
        The group; a path is that of its folder.
    guard : Guard, optional
        What is read, and what to do if it is damaged; not needed for a store that is guarded already.
    consolidated : bool
        Whether the metadata are gathered in one file.
    group : str, optional
        Path of a group below the one of the store.
    """
    if guard is not None:
        store = _guarded(store, guard)
    with store.guard.told():
        return _read(store, consolidated=consolidated, group=group)


def read_labels(store: Any, dim: str, *, guard: Guard) -> list[str]:
    """Return the labels along one axis of a Zarr group as text, dates as YYYY-MM-DD; arguments as in `read_dataset`."""
    guarded = _guarded(store, guard)
    with guard.told(), naming():
        values: Any = zarr.open_array(guarded, path=dim, mode="r")[:]
    return [str(label) for label in (values.astype("datetime64[D]") if dim == "date" else values).tolist()]


def _guarded(store: Any, guard: Guard) -> GuardedStore:
    return GuardedStore(LocalStore(store, read_only=True) if isinstance(store, str | Path) else store, guard)


def _read(store: GuardedStore, *, consolidated: bool, group: str | None) -> xr.Dataset:
    with naming():
        dataset: xr.Dataset = xr.open_zarr(store, group=group, consolidated=consolidated, chunks=None, zarr_format=3)
    labels = {
        name: (coordinate.dims, np.array(coordinate.values.tolist(), dtype=str), coordinate.attrs)
        for name, coordinate in dataset.coords.items()
        if isinstance(coordinate.dtype, np.dtypes.StringDType) or coordinate.dtype.kind == "O"
    }
    return dataset.assign_coords(labels)


def encode_dates(dates: pd.DatetimeIndex) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return days since 1970-01-01."""
    return dates.to_numpy().astype("datetime64[D]").astype(np.int64)


def _write_first(folder: Path, block: xr.Dataset, compressors: tuple[BytesBytesCodec, ...], tiles: bool) -> None:
    encoding: dict[Any, dict[str, Any]] = {}
    for name, variable in block.variables.items():
        dims = tuple(str(dim) for dim in variable.dims)
        if variable.dtype.kind == "M":
            encoding[name] = {**DATE_ENCODING, "dtype": "int64", "chunks": (LABEL_CHUNK,) * variable.ndim}
        elif variable.dtype.kind in "biuf":
            encoding[name] = {"chunks": chunk_shape(dims, variable.shape, variable.dtype.itemsize, tiles=tiles)}
            if variable.dtype.kind == "f":
                encoding[name]["fill_value"] = np.nan
        else:
            encoding[name] = {"chunks": (LABEL_CHUNK,) * variable.ndim}
        encoding[name]["chunk_key_encoding"] = FLAT
        encoding[name]["compressors"] = compressors if variable.dtype.kind in "biuf" else (COMPRESSOR,)
    strings = [name for name, variable in block.variables.items() if variable.dtype.kind in "UT"]
    # Not mode "w": that removes the folder and makes it anew, and with it the lock that says that it has an owner.
    block.assign({name: block[name].astype(object) for name in strings}).to_zarr(
        folder, mode="a", zarr_format=3, consolidated=False, encoding=encoding
    )


def _refuse_gap(before: xr.Dataset, block: xr.Dataset) -> None:
    if set(before.variables) != set(block.variables):
        different = sorted(map(str, set(before.variables) ^ set(block.variables)))
        raise AlignmentError(f"blocks of dates differ in their variables: {', '.join(different)}")
    if block.sizes.get("date") and not block.indexes["date"][0] > before.indexes["date"][-1]:
        raise AlignmentError(
            f"a block that starts on {block.indexes['date'][0]:%Y-%m-%d} follows one that ends on "
            f"{before.indexes['date'][-1]:%Y-%m-%d}; give blocks in the order of their dates"
        )
    for dim in before.indexes:
        if dim != "date" and not before.indexes[dim].equals(block.indexes[dim]):
            raise AlignmentError(f"blocks of dates differ in their labels along '{dim}'")
