"""What data-quality checks look at: flags of rows, and small summaries of everything else.

Here belong pure functions of a market dataset, or of a slice of a cube, that say how the data look. What is
expected of them is declared in `schemas.checks`; expecting it, and acting on it, belongs in
`tasks.checking`.

Where do I go to ...?

======================================================  ==========================
flag a row by its own prices or returns                  `models.quality.rows`
tell which price of a bar is wrong                       `models.quality.bars`
flag a jump that looks like a split or a bad print       `models.quality.jumps`
adjust prices for a split                                `models.quality.splits`
summarise what was read by date, ticker or variable      `models.quality.summaries`
tell companies of one ticker apart                       `models.quality.listings`
go on with a market where new dates follow               `models.quality.survey`
summarise what a delivery takes back                     `models.quality.delivery`
summarise what is about to be written to a cube          `models.quality.cube`
======================================================  ==========================
"""

from models.quality.arrays import labels
from models.quality.bars import PRICES
from models.quality.cube import cube_by_date
from models.quality.delivery import delivery_tables, withdrawn_rows
from models.quality.rows import Flagged, RowFlags, flag_rows, period_returns, rows_by_date, sections_of
from models.quality.splits import adjust_splits, propose_splits, ratio_in_words
from models.quality.summaries import Tally, by_date, by_ticker, by_variable, keys, sessions_table, structure
from models.quality.survey import Followed, Survey, looked_back

__all__ = [
    "PRICES",
    "Flagged",
    "Followed",
    "RowFlags",
    "Survey",
    "Tally",
    "adjust_splits",
    "by_date",
    "by_ticker",
    "by_variable",
    "cube_by_date",
    "delivery_tables",
    "flag_rows",
    "keys",
    "labels",
    "looked_back",
    "period_returns",
    "propose_splits",
    "ratio_in_words",
    "rows_by_date",
    "sections_of",
    "sessions_table",
    "structure",
    "withdrawn_rows",
]
