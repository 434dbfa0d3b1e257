"""Published versions and their peers, judged by one protocol on the same dates, stocks and portfolios.

Here belongs the opening of versions and returns. The protocol is `models.evaluation.protocol`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
import xarray as xr

from models.evaluation.peers import PEERS
from models.evaluation.protocol import Rules, judge, published
from models.forecasting.held import counted, holdings
from schemas.checks import SuspectedReturns
from schemas.errors import ConfigError
from schemas.refs import VersionRef
from storage import published as store
from storage.cube import Cube
from storage.layout import Layout


def judge_versions(
    layout: Layout,
    refs: Sequence[VersionRef],
    peers: Sequence[str] = (),
    first: date | None = None,
    suspected: SuspectedReturns = "counted",
) -> dict[str, xr.Dataset]:
    """Judge versions of one universe, and peers by name, each by `models.evaluation.protocol.judge`.

    Returns are those of the cube as the first version saw it, less the risk-free rate; refuted ones count nowhere.

    Parameters
    ----------
    first : datetime.date, optional
        First date whose return is judged; by default the first after all versions forecast.
    suspected : {"counted", "left_out"}
        What becomes of returns that a check suspects.

    Raises
    ------
    ConfigError
        If the versions are of several universes, a peer has no such name, or no date is left to be judged.
    """
    if len({ref.universe for ref in refs}) != 1:
        raise ConfigError("versions of several universes cannot be judged on the same returns; give those of one")
    for name in peers:
        if name not in PEERS:
            raise ConfigError(f"there is no peer '{name}' (one of: {', '.join(PEERS)})")
    opened = {str(ref): store.open_version(layout, ref) for ref in refs}
    snapshot = store.read_manifest(layout, refs[0]).snapshot_id
    cube = Cube.open(layout, refs[0].universe).open_dataset(snapshot)
    returns = counted(_excess(cube), holdings(cube).load(), suspected).load()
    begin = max(_first_forecast(version) for version in opened.values())
    place = int(returns.indexes["date"].searchsorted(begin, side="right"))
    if first is not None:
        place = max(place, int(returns.indexes["date"].searchsorted(pd.Timestamp(first))))
    last = min(version.indexes["date"][-1] for version in opened.values())
    returns = returns.sel(date=slice(None, last))
    if place + Rules().step > returns.sizes["date"]:
        raise ConfigError(
            f"no {Rules().step} dates are left to be judged after {begin:%Y-%m-%d}; forecast earlier ones"
        )
    rules = Rules(first=place, history=min(Rules().history, place))
    forecasters = {name: published(version) for name, version in opened.items()}
    forecasters |= {name: PEERS[name](returns) for name in peers}
    return {name: judge(forecaster, returns, rules) for name, forecaster in forecasters.items()}


def _excess(cube: xr.Dataset) -> xr.DataArray:
    return cube["returns"] - cube["risk_free"].fillna(0.0) if "risk_free" in cube else cube["returns"]


def _first_forecast(version: xr.Dataset) -> pd.Timestamp:
    known = np.isfinite(version["omega"].isel(factor=0, factor_=0).values)
    if not known.any():
        raise ConfigError("a version without any forecast of risk cannot be judged")
    return pd.Timestamp(version.indexes["date"][known.argmax()])
