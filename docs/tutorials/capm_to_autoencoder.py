# %% [markdown]
# # From CAPM to an autoencoder
#
# Three models of the same returns, each with one idea more: one beta per stock; loadings that are linear in
# characteristics; loadings that are any function of them. All follow one protocol, so that every line after `fit` is
# the same.

# %%
import pandas as pd
from skfolio.datasets import load_sp500_dataset

from models import IPCA, ConditionalAutoencoder, MarketModel, Panel
from models.characteristics import compute

closes = load_sp500_dataset().loc["2008":].rename_axis(index="date", columns="ticker").stack().to_xarray()
returns = closes / closes.shift(date=1) - 1
names = ["mom1m", "mom6m", "mom12m", "maxret", "retvol", "beta", "idiovol"]
chars = compute(returns.to_dataset(name="returns"), names, "daily")
table = chars.to_dataset("char").assign(ret=returns).to_dataframe().reset_index().dropna(subset="ret")
panel = Panel.from_long(table, returns="ret", characteristics=names, lag=1)
train, test = panel.sel(start="2009-06", end="2018-12"), panel.sel(start="2019-01")

# %% [markdown]
# ## CAPM
#
# r = alpha + beta m + e, per stock. R2 is the share of a stock's variance that is the market's; the expected return
# of a stock is beta times the market's premium: alpha is estimated, and set to zero where returns are forecast.

# %%
capm = MarketModel(window=504).fit(train)
capm.statistics()["r_squared"].to_series().sort_values(ascending=False).round(2).head()

# %% [markdown]
# ## IPCA
#
# Loadings are linear in characteristics, X = Z Gamma, and the factors are whatever explains most. A stock's loadings
# move with its characteristics.

# %%
ipca = IPCA(n_factors=3).fit(train)
ipca.loadings(test).sel(ticker="AAPL").to_pandas().iloc[-3:].round(4)

# %% [markdown]
# ## Conditional autoencoder
#
# A network in place of Gamma. More can be said by it, and more has to be learnt.

# %%
autoencoder = ConditionalAutoencoder(n_factors=3, hidden=(16,), seeds=(0, 1), max_epochs=30).fit(train)

# %% [markdown]
# ## Side by side, on years that none of them has seen

# %%
pd.DataFrame({type(m).__name__: m.score(test) for m in (capm, ipca, autoencoder)}).T.round(4)

# %% [markdown]
# Twenty stocks are few: a network has little to find here, and the table says so. [Results](../results.md) has the
# same for 505 stocks, with risk forecasts judged, and [nonlinear models](../nonlinear.md) says when a network is
# worth its time.
