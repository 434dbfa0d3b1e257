"""Characteristics from prices, returns and volumes alone, as pure functions of (date, ticker) arrays.

Where do I go to ...
- add one, or see what each needs: `registry`; what one means: `momentum`, `risk`, `liquidity`;
- change what a month or a shared input is: `fields`; change how windows are summed: `models.windows`.

Accounting characteristics need fundamentals and do not belong here. The value at t is known at the close of
t; it is the panel that lags.
"""

from models.characteristics.fields import Frequency
from models.characteristics.registry import CHARACTERISTICS, Characteristic, available, compute, lookback

__all__ = ["CHARACTERISTICS", "Characteristic", "Frequency", "available", "compute", "lookback"]
