"""The command that judges: the risk forecasts of versions and their peers in one table."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console_tables import Column, print_table
from deploy.terminal import Terminal
from schemas.settings import load_settings

if TYPE_CHECKING:
    import xarray as xr

_OPTIMISED, _RANDOM = "minimum_variance", "random_long_short"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(judge)


def judge(
    versions: Annotated[list[str], typer.Argument(help="Versions of one universe, such as us_demo/ipca/latest.")],
    peers: Annotated[
        list[str] | None,
        typer.Option("--peer", help="Also sample, ledoit_wolf, qis, pca20_ewma126 or sklearn_fa20; may be repeated."),
    ] = None,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First date whose return is judged.")
    ] = None,
    leave_suspects_out: Annotated[
        bool, typer.Option("--leave-suspects-out", help="Leave out returns that a data check suspects.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Judge risk forecasts by what happened: the same dates, stocks and portfolios for all of them.

    Every 21 sessions each forecast is held against the next 21 days; a bias statistic above 1 means that risk was
    under-forecast. The last column is the p-value of Diebold and Mariano that minimum variance is no riskier by the
    first version than by the one of the line.
    """
    from models.inference.diebold_mariano import diebold_mariano
    from tasks.judging import judge_versions
    from tasks.promoting import find_version
    from tasks.workspace import Workspace

    layout = Workspace.of(load_settings()).layout
    found = judge_versions(
        layout,
        [find_version(layout, version) for version in versions],
        peers or [],
        None if first is None else first.date(),
        "left_out" if leave_suspects_out else "counted",
    )
    if as_json:
        typer.echo(json.dumps({name: _numbers(judged) for name, judged in found.items()}, indent=2))
        return
    losses = {name: judged["squared_return"].sel(family=_OPTIMISED).values for name, judged in found.items()}
    best = next(iter(losses.values()))
    rows = []
    for place, (name, judged) in enumerate(found.items()):
        test = diebold_mariano(losses[name], best) if place else None
        rows.append([name, *_cells(judged), "" if test is None else f"{test.p_worse:.3f}"])
    columns: list[Column | str] = [
        "forecast", "min-var volatility %", "its bias", Column("long-only min-var bias", drop=2), "optimised bias",
        "equal weight bias", "MRAD random", "log-likelihood", Column("eigen-rank biases", drop=1),
        Column("p against the first", drop=3),
    ]  # fmt: skip
    terminal = Terminal()
    print_table(terminal, columns, rows)
    sample = next(iter(found.values()))
    dates = sample["log_likelihood_by_date"].dropna("date").indexes["date"]
    terminal.print(
        f"{len(dates)} dates from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}; standard errors: equal weight "
        f"{_value(sample, 'bias_statistic_stderr', 'equal_weight'):.3f}, optimised "
        f"{_value(sample, 'bias_statistic_stderr', 'random_alpha'):.3f}, MRAD "
        f"{_value(sample, 'mrad_stderr', _RANDOM):.3f}",
        markup=False,
        soft_wrap=True,
    )


def _cells(judged: xr.Dataset) -> list[str]:
    ranks = [family for family in map(str, judged["family"].values) if family.startswith("eigen")]
    return [
        f"{_value(judged, 'volatility', _OPTIMISED):.2f}",
        f"{_value(judged, 'bias_statistic', _OPTIMISED):.2f}",
        f"{_value(judged, 'bias_statistic', 'minimum_variance_long_only'):.2f}",
        f"{_value(judged, 'bias_statistic', 'random_alpha'):.3f}",
        f"{_value(judged, 'bias_statistic', 'equal_weight'):.3f}",
        f"{_value(judged, 'mrad', _RANDOM):.3f}",
        f"{float(judged['log_likelihood']):.3f}",
        " ".join(f"{_value(judged, 'bias_statistic', rank):.2f}" for rank in ranks),
    ]


def _value(judged: xr.Dataset, name: str, family: str) -> float:
    return float(judged[name].sel(family=family, horizon=1))


def _numbers(judged: xr.Dataset) -> dict[str, object]:
    """Return all numbers that are not by date; None where there is none."""
    found: dict[str, object] = {}
    for name, array in judged.data_vars.items():
        if "date" in array.dims:
            continue
        if array.dims:
            found[str(name)] = {
                f"{family}.{horizon}": _finite(float(array.sel(family=family, horizon=horizon)))
                for family in map(str, array["family"].values)
                for horizon in map(int, array["horizon"].values)
            }
        else:
            found[str(name)] = _finite(float(array))
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
