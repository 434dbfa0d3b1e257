# %% [markdown]
# # The risk of a book
#
# From a model to the questions of a risk officer: how much, from what, against what, and can I believe it?

# %%
import pandas as pd
import xarray as xr
from skfolio.datasets import load_sp500_dataset

from models import IPCA, Panel, RiskModel, WalkForward, forecast
from models import tracking_error, variance_at_horizon, volatility_by_factor, volatility_by_ticker
from models.characteristics import compute

closes = load_sp500_dataset().loc["2012":].rename_axis(index="date", columns="ticker").stack().to_xarray()
returns = closes / closes.shift(date=1) - 1
names = ["mom12m", "maxret", "retvol", "beta"]
cube = xr.Dataset(
    {
        "returns": returns,
        "characteristics": compute(returns.to_dataset(name="returns"), names, "daily"),
        "estimation": returns.notnull(),
        "weights": xr.ones_like(returns).expand_dims(portfolio=["equal_weight"]) / returns.sizes["ticker"],
    }
)

# %% [markdown]
# `forecast` makes what a retrain publishes: refits, loadings, Omega, specific variance. Every row is what was known
# at the close of its date.

# %%
panel = Panel.from_cube(cube, next_date="2022-12-29")
version = forecast(IPCA(n_factors=3), panel, cube, WalkForward(first="2020-12-31"))
dict(version.sizes)

# %% [markdown]
# ## How much

# %%
now = version.isel(date=-1)
model = RiskModel(now.loadings, now.omega, now.specific_variance)
book = pd.Series({"AAPL": 0.3, "MSFT": 0.3, "JPM": 0.2, "XOM": 0.2}).reindex(now.ticker.values, fill_value=0.0)
weights = xr.DataArray(book.values, dims="ticker", coords={"ticker": now.ticker})
risk = model.decompose(weights)
f"{float(variance_at_horizon(risk.portfolio_variance, 252) ** 0.5):.1%} a year"

# %% [markdown]
# ## From what
#
# Contributions of factors (and what is specific), or of stocks, add up to the volatility. `budget` is the part that
# is there for errors of estimation in any book that invests all of its money ([methodology](../methodology.md)).

# %%
volatility_by_factor(model, weights)[["exposure", "marginal", "contribution"]].drop_vars("date").to_dataframe().round(5)

# %%
by_ticker = volatility_by_ticker(model, weights).drop_vars("date").to_dataframe()
by_ticker.sort_values("contribution", ascending=False).head(4).round(5)

# %% [markdown]
# ## Against what

# %%
benchmark = now.weights.sel(portfolio="equal_weight")
f"{float(tracking_error(model, weights, benchmark)) * 252**0.5:.1%} a year from the equal-weight portfolio"

# %% [markdown]
# ## Can I believe it?
#
# Returns over the volatility that was forecast for them the day before should have a standard deviation of one.

# %%
realised = version.portfolio_return.sel(portfolio="equal_weight")
forecasts = version.portfolio_variance.sel(portfolio="equal_weight").shift(date=1) ** 0.5
round(float((realised / forecasts).std()), 2)
