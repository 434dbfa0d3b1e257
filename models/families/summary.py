"""What a fitted model says of itself at a glance, as text and as HTML.

Here belongs how it is laid out. The numbers are those that `FactorModel.statistics` and `FactorModel.score` give.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats


@dataclass(frozen=True, eq=False)
class Summary:
    """Facts about a fit, and its premia with their errors; printed in a notebook as it is.

    Attributes
    ----------
    title : str
        Class and parameters that are not the defaults.
    facts : dict[str, str]
        Name and value.
    premia : pandas.DataFrame
        By factor ``estimate`` per period; where the model has errors of them also ``stderr``, ``t`` and ``p_value``
        (two-sided, normal); where it says so ``n_obs``, dates behind the estimate.
    """

    title: str
    facts: dict[str, str]
    premia: pd.DataFrame

    def __str__(self) -> str:
        width = max(map(len, self.facts), default=0)
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts.items()]
        return "\n".join([self.title, *lines, "", self.premia.to_string(float_format="{:.4g}".format)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.facts.items()
        )
        table = self.premia.to_html(float_format="{:.4g}".format)
        return f"<b>{html.escape(self.title)}</b><table>{rows}</table>{table}"


def premia_table(statistics: dict[str, xr.DataArray], factors: list[str]) -> pd.DataFrame:
    """Lay out the premia among the statistics of a model, as `Summary.premia`.

    The error is Shanken's where there is one, as in the t-statistics of the model.
    """
    table = pd.DataFrame({"estimate": statistics["premia"].to_series()}, index=pd.Index(factors, name="factor"))
    error = statistics.get("shanken_stderr", statistics.get("premia_stderr"))
    if error is not None:
        table["stderr"] = error.to_series()
        table["t"] = table["estimate"] / table["stderr"]
        table["p_value"] = 2.0 * stats.norm.sf(np.abs(table["t"]))
    if "n_slopes" in statistics:
        table["n_obs"] = statistics["n_slopes"].to_series()
    return table
