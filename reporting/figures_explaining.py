"""Figures about loadings that are no straight lines: importance, response curves, factors beside linear ones.

Each function draws one figure within `canvas.drawing`, of the models whose loadings are nonlinear functions of
characteristics; None if there are none. Other figures about factors belong in `figures`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from models.evaluation.explaining import canonical_correlations
from reporting.canvas import HALF, INK, MUTED, Chart, Picture, legend, shown, to_svg
from reporting.figures import MOST_FACTORS
from reporting.readings import PublishedVersion, bends, important, leading_factors, moving_returns
from schemas.errors import DataError

_MOST_BARS = 15
_CURVES = 2


def importance(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw by how much total R2 falls without each characteristic, a picture per model."""
    pictures = [_importance(version, f"importance{n}") for n, version in enumerate(versions) if bends(version)]
    return _chart(
        pictures,
        "Fall of total R2, in points of percent, when one characteristic is set to its median at all stocks; other "
        "characteristics and factor returns stay as they were. Two that tell the same share what they tell. A bar to "
        "the left of zero is a characteristic without which the loadings would fit better.",
    )


def _importance(version: PublishedVersion, key: str) -> Picture:
    shares = important(version, _MOST_BARS)
    figure = Figure(figsize=(HALF, 0.6 + 0.2 * len(shares)), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(shares))
    ax.barh(places, shares.to_numpy(), height=0.65)
    ax.axvline(0.0, color=INK, linewidth=0.6)
    ax.set_yticks(places, [shown(str(name)) for name in shares.index])
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("fall of total R2, % points")
    total = version.dataset.sizes["char"]
    note = f"The {len(shares)} of {total} characteristics that count most." if total > len(shares) else ""
    alt = f"Importance of the characteristics in {version.model}"
    return Picture(version.model, _fit(version), to_svg(figure, key), alt, note)


def responses(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw loadings as functions of the two most important characteristics, a picture per model."""
    pictures = [_responses(version, f"responses{n}") for n, version in enumerate(versions) if bends(version)]
    return _chart(
        pictures,
        "Loading of a stock that has one characteristic at the value below and all others at their median, as the "
        "model sees characteristics, from the 1% to the 99% quantile. A straight line is what a linear model would "
        "give; what depends on two characteristics together may show in neither by itself.",
    )


def _responses(version: PublishedVersion, key: str) -> Picture:
    varies = version.dataset["response_value"].notnull().all("level").to_series()
    names = [name for name in important(version, version.dataset.sizes["char"]).index if varies[name]][:_CURVES]
    leading = leading_factors(version, MOST_FACTORS)
    curves = version.dataset["response"].transpose("char", "level", "factor").isel(factor=leading)
    figure = Figure(figsize=(HALF, 2.5), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True).ravel().tolist()
    for ax, name in zip(axes, names, strict=True):
        ax.axhline(0.0, color=INK, linewidth=0.6)
        lines = ax.plot(version.dataset["response_value"].sel(char=name).values, curves.sel(char=name).values)
        ax.set_xlabel(shown(str(name)))
    figure.supylabel("loading, 1", color=MUTED)
    legend(figure, list(zip(lines, [version.factors[place] for place in leading], strict=True)))
    alt = f"Loadings of {version.model} as functions of {' and '.join(shown(str(name)) for name in names)}"
    return Picture(version.model, _fit(version), to_svg(figure, key), alt)


def beside_linear(versions: Sequence[PublishedVersion]) -> Chart | None:
    """Draw canonical correlations with the factors of the first linear model, a picture per nonlinear one."""
    linear = next((version for version in versions if "response" in version.dataset and not bends(version)), None)
    if linear is None:
        return None
    drawn = [_beside(version, linear, f"canonical{n}") for n, version in enumerate(versions) if bends(version)]
    return _chart(
        [picture for picture in drawn if picture is not None],
        f"Canonical correlations of the model's factor returns with those of {linear.model}, over all dates that both "
        "have: the largest correlations that combinations of the one set can have with combinations of the other. "
        "Bars near one are factors that the linear model has too; a low one is a factor that it has not.",
    )


def _beside(version: PublishedVersion, linear: PublishedVersion, key: str) -> Picture | None:
    try:
        correlations = canonical_correlations(moving_returns(version), moving_returns(linear)).values
    except DataError:
        return None
    figure = Figure(figsize=(HALF, 2.2), layout="constrained")
    ax = figure.subplots()
    places = np.arange(1, len(correlations) + 1)
    ax.bar(places, correlations, width=0.6)
    ax.set_xticks(places[:: -(-len(places) // 20)])
    ax.set(ylim=(0.0, 1.02), xlabel="pair", ylabel="canonical correlation, 1")
    alt = f"Canonical correlations of the factors of {version.model} with those of {linear.model}"
    return Picture(f"{version.model} beside {linear.model}", _dates(version), to_svg(figure, key), alt)


def _chart(pictures: Sequence[Picture], caption: str) -> Chart | None:
    return Chart(tuple(pictures), caption, columns=2) if pictures else None


def _fit(version: PublishedVersion) -> str:
    refits = version.manifest.refits
    return f"fit of {refits[-1]}" if refits else _dates(version)


def _dates(version: PublishedVersion) -> str:
    return f"as of {version.manifest.as_of}"
