# %% [markdown]
# # Risk of nonlinear returns
#
# If r = X f + e, then Var(R_P) = w'X Omega X'w + Var(e). What if returns are *not* linear in the factors: r = phi(X,
# f) + e, with options in the book, or a network that takes characteristics and factors together? There is no X Omega
# X' then, but there is a fitted law of f, and phi.

# %%
import numpy as np
import pandas as pd
import torch
import xarray as xr

from models import RiskModel, local_loadings, nonlinear_risk

rng = np.random.default_rng(0)
tickers, factors = [f"stock{i}" for i in range(50)], ["market", "value"]
X = torch.as_tensor(rng.normal([1.0, 0.0], 0.3, (50, 2)))
omega = xr.DataArray(
    np.diag([0.02**2, 0.004**2]), dims=("factor", "factor_"), coords={"factor": factors, "factor_": factors}
)
specific = xr.DataArray(np.full(50, 0.015**2), dims="ticker", coords={"ticker": tickers})
weights = xr.DataArray(np.full(50, 1 / 50), dims="ticker", coords={"ticker": tickers})

# %% [markdown]
# `nonlinear_risk` gives three answers. **Linearised**: J Omega J' with the Jacobian J of phi at the mean of f.
# **Quadratic**: with the curvature there. **Simulated**: draws of f through phi. For a linear phi they are one
# number:


# %%
def volatilities(phi):
    """Volatility by factors, in percent a day, by the three ways."""
    found = nonlinear_risk(phi, omega, specific, weights)
    return {way: 100 * float(getattr(found, way)) ** 0.5 for way in ("linearised", "quadratic", "simulated")}


pd.DataFrame({"X f": volatilities(lambda f: X @ f)}).T.round(4)

# %% [markdown]
# Now every stock has a put: no factor move costs more than two percent. And a book that is short of curvature.

# %%
pd.DataFrame(
    {
        "X f": volatilities(lambda f: X @ f),
        "no loss beyond 2 %": volatilities(lambda f: torch.clamp(X @ f, min=-0.02)),
        "X f - 8 (X f)^2": volatilities(lambda f: X @ f - 8 * (X @ f) ** 2),
    }
).T.round(4)

# %% [markdown]
# The linearised number does not see the put at all: at the mean of f it is far away. The difference between the
# columns is the answer to 'may I linearise?', and costs a second.
#
# Where it is small, `local_loadings` makes a linear risk model of phi, and contributions, tracking error and
# allocation hold as for any other:

# %%
local = local_loadings(
    lambda f: X @ f - 8 * (X @ f) ** 2, xr.zeros_like(omega.isel(factor_=0, drop=True)), specific.ticker
)
RiskModel(local, omega, specific).decompose(weights).portfolio_variance_factor.to_pandas()
