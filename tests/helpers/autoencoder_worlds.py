"""What conditional autoencoders explain in the worlds of `kernel_worlds`, with profiled factors and as published.

Here belong the settings that are compared. ``python -m tests.helpers.autoencoder_worlds`` prints the table of
`docs/nonlinear.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.families.autoencoder import ConditionalAutoencoder
from models.families.base import FactorModel
from models.families.ipca import IPCA
from tests.helpers.kernel_worlds import LOADINGS, simulate, tell, true_scores, with_constant

SETTINGS: tuple[dict[str, Any], ...] = (
    {"factors": "profiled", "hidden": (32, 16)},
    {"factors": "profiled"},
    {"hidden": (32, 16)},
    {},
)
COLUMNS = (
    "profiled, (32, 16)",
    "profiled, (32,)",
    "portfolios, (32, 16)",
    "portfolios, (32,)",
    "IPCA",
    "true loadings",
)


def scores(
    kind: str, seed: int, n_chars: int | None = None, settings: Sequence[dict[str, Any]] = SETTINGS
) -> np.ndarray:
    """(column, 2) total and predictive R2 out of sample, in percent: of each setting, IPCA and the true loadings."""
    world = simulate(kind, seed, n_chars)
    k = world.beta_test.shape[2]
    found = [ConditionalAutoencoder(k, **setting).fit(world.train).score(world.test) for setting in settings]
    peer: FactorModel = IPCA(k, max_iter=5000)
    train, test = world.train, world.test
    if kind in LOADINGS:
        train, test = with_constant(train), with_constant(test)
    found.append(peer.fit(train).score(test))
    return 100.0 * np.array([*(tuple(score.values()) for score in found), true_scores(world)])


if __name__ == "__main__":
    tell(scores, COLUMNS, draws=5, kinds=["a", "b"])
