"""What a cell may hold, whoever reads it: a file that a run reads, and a frame that a notebook brings.

Here belong the rules as data: which text is a date or is missing, which dates and returns cannot be, which columns are
no stocks. Applying them to polars columns belongs in `storage.sources`, to pandas ones in `models.panel`.
"""

from __future__ import annotations

from datetime import date

MISSING = ("", ".", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None")
"""Text that counts as a missing number."""

DATE_FORMATS = {"%Y-%m-%d": None, "%Y%m%d": 8}
"""How a date may be written as text, and of how many digits where nothing parts them.

Nothing is guessed: 2017123 may be in January or in December, 03.02.17 in March or in February.
"""

MONTH_FORMATS = {"%Y-%m": None, "%Y%m": 6}
"""How a month may be written, where a row is a month; it becomes the last day of it."""

LONGEST_DATE = 10
"""Characters of a date without what may follow it."""

MIDNIGHT = r"[T ]00:00(:00(\.0+)?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?$"
"""What may follow a date as text: midnight of the day, whatever the offset of the zone in which it is that day."""

DATE_ADVICE = "write existing dates as YYYY-MM-DD, without time of day"

EARLIEST = date(1900, 1, 1)
"""No date lies before it."""

WORST_RETURN = -1.0
"""No simple return is less: all is lost."""

LARGEST_RETURN = {"daily": 0.05, "monthly": 0.3}
"""No typical move of decimal returns, the median of their absolute values, is larger."""

LARGEST_RATE = {"daily": 0.002, "monthly": 0.05}
"""No risk-free rate per period is larger, as a decimal: 65 % and 80 % a year; 1981 in the US: 0.0006 and 0.0135."""

ROW_NUMBERS = r"^(|Unnamed: \d+(_level_\d+)?|__index_level_\d+__|index|level_\d+)$"
"""Names that pandas gives to an index or to a column without a name; no stock is called so."""
