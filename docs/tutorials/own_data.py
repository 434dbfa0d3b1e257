# %% [markdown]
# # Your own data
#
# From a table of closing prices to a factor model, without a config and without a server. The prices here are those
# of twenty stocks that come with the package skfolio; put your own in their place.

# %%
import pandas as pd
from skfolio.datasets import load_sp500_dataset

prices = load_sp500_dataset().loc["2010":]
prices.iloc[-3:, :5]

# %% [markdown]
# Characteristics are computed from what you have. `available` says which of them closes alone allow.

# %%
from models.characteristics import available, compute

closes = prices.rename_axis(index="date", columns="ticker").stack().to_xarray()
returns = closes / closes.shift(date=1) - 1
fields = returns.to_dataset(name="returns").assign(close=closes)
available(fields, "daily")

# %%
characteristics = compute(fields, ["mom1m", "mom12m", "retvol", "beta"], "daily")
characteristics.isel(date=-1).to_pandas().head().round(3)

# %% [markdown]
# A panel puts the return of a date beside what was known *before* it: `lag=1` says that a characteristic of a row was
# known at its close.

# %%
from models import Panel

table = characteristics.to_dataset("char").assign(ret=returns).to_dataframe().reset_index().dropna(subset="ret")
panel = Panel.from_long(table, returns="ret", characteristics=["mom1m", "mom12m", "retvol", "beta"], lag=1)
train, test = panel.sel(end="2018-12"), panel.sel(start="2019-01")
len(train.dates), len(test.dates), panel.chars

# %% [markdown]
# Fit on the past, look at the years after it.

# %%
from models import IPCA

model = IPCA(n_factors=2).fit(train)
model.score(test)

# %%
pd.DataFrame(model.gamma_.values, index=panel.chars, columns=["factor 1", "factor 2"]).round(3)

# %% [markdown]
# What stands between this and a version that others can read: checks of the data, refits, Omega and specific risk, a
# gate, a report. A config of some lines has them; see [ten minutes](../start.md).
