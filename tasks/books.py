"""The risk of books that no config names: a version opened for them, and a file of holdings as weights.

Here belongs what the command needs of stores and sources. It imports no Prefect and no Dask: an answer takes a second
or two. The risk itself belongs in `models.risk.book`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from models.portfolios.holdings import weights_of_values
from models.risk.book import BookRisk, VersionRisk
from schemas.errors import CubeError, DataError, FactorcubeError, SourceError
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import published
from storage.layout import Layout
from storage.sources.holdings import holdings_file, read_holdings

UPLOAD_BYTES = 4 * 2**20
"""Most bytes of a book that is uploaded: some hundred thousand rows."""


@dataclass(frozen=True, eq=False)
class Holdings:
    """Weights of a book by ticker, and the date of its rows if they have dates."""

    weights: pd.Series
    date: pd.Timestamp | None


def open_risk(layout: Layout, ref: VersionRef) -> VersionRisk:
    """Open a published version for the risk of books, with the industries of its snapshot if there are any.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If a file of it is damaged.
    """
    manifest = published.read_manifest(layout, ref)
    industries = manifest.config.get("industries")
    groups = None if industries is None else _industries(layout, ref.universe, manifest.snapshot_id, ref.as_of)
    return VersionRisk(published.open_version(layout, ref), groups)


def weights_of_file(path: Path, portfolio: str | None, version: VersionRisk, settings: Settings) -> Holdings:
    """Read the weights of a book from a file; of several dates the last one at or before that of the version.

    Raises
    ------
    SourceError
        If the file cannot be read, or does not have the columns.
    DataError
        If its rows cannot be used: a ticker twice, no date early enough, shares without prices.
    """
    source = holdings_file(path, portfolio, settings)
    if source.shares is not None:
        raise DataError(f"{path}: {version.name} has no prices to value shares with; give a column `value` or `weight`")
    rows = read_holdings(source, settings=settings, frequency=version.rows.attrs["frequency"])
    day = None
    if source.date is not None:
        last = version.as_of()
        known = rows["date"][rows["date"] <= last]
        if known.empty:
            raise DataError(f"{path}: its first date is after {last:%Y-%m-%d}, the last one of {version.name}")
        day = pd.Timestamp(known.max())
        rows = rows[rows["date"] == day]
    amounts = rows.set_index("ticker")["amount"]
    return Holdings(amounts if source.value is None else weights_of_values(amounts, str(path)), day)


def weights_of_upload(content: bytes, portfolio: str | None, version: VersionRisk, settings: Settings) -> Holdings:
    """Read the weights of a book from a CSV file that somebody has sent; nothing of it is kept.

    Raises
    ------
    SourceError
        If it is larger than `UPLOAD_BYTES`, or as `weights_of_file`.
    DataError
        As `weights_of_file`.
    """
    if len(content) > UPLOAD_BYTES:
        raise SourceError(
            f"the book has {len(content):,} bytes; send at most {UPLOAD_BYTES:,}, or use `factorcube risk`"
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "book.csv"
        file.write_bytes(content)
        try:
            return weights_of_file(file, portfolio, version, settings)
        except FactorcubeError as error:
            raise type(error)(str(error).replace(str(file), "the book")) from None


def book_page(layout: Layout, ref: VersionRef, found: BookRisk, name: str) -> str:
    """Render the page of a book whose risk was taken by a version, with figures through time.

    Raises
    ------
    PublishError
        If there is no such version.
    CorruptionError
        If a file of it is damaged.
    """
    from reporting import PublishedVersion, render_book

    manifest = published.read_manifest(layout, ref)
    return render_book(PublishedVersion(published.open_version(layout, ref), manifest), found, name)


def _industries(layout: Layout, universe: str, snapshot: str, as_of: object) -> pd.Series | None:
    """Return the industry of each ticker on a date; None if the snapshot is gone."""
    from storage.cube import Cube

    try:
        cube = Cube.open(layout, universe).open_dataset(snapshot)
    except CubeError:
        return None
    codes = cube["industry"].sel(date=f"{as_of}").to_series()
    names = np.append(cube["industry_name"].values.astype(str), "")  # -1, unknown, is the last one
    return pd.Series(names[codes.to_numpy()], index=codes.index)
