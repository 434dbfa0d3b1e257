"""What books hold, read for an ingest that takes it up into the recipe of a cube."""

from __future__ import annotations

import pandas as pd

from models.portfolios.holdings import weights_of_values
from schemas.settings import Settings
from schemas.spec import DatedWeights, Frequency, Holdings
from storage.sources.holdings import read_holdings


def read_positions(item: Holdings, frequency: Frequency, settings: Settings) -> Holdings:
    """Read what a book holds; values become weights of their date, shares stay shares until they are priced.

    Raises
    ------
    SourceError, DataError
        If the source cannot be read, or its rows cannot be used.
    """
    if item.rebalances or item.source is None:
        return item
    rows = read_holdings(item.source, settings=settings, frequency=frequency)
    found = []
    for day in pd.DatetimeIndex(rows["date"].unique()).sort_values():
        amounts = rows[rows["date"] == day].set_index("ticker")["amount"]
        if item.source.value is not None:
            amounts = weights_of_values(amounts, f"portfolio '{item.name}' on {day:%Y-%m-%d}")
        found.append(DatedWeights(as_of=day.date(), weights=amounts[amounts != 0.0].to_dict()))
    unit = "weight" if item.source.shares is None else "shares"
    return item.model_copy(update={"rebalances": tuple(found), "unit": unit, "source": None})
