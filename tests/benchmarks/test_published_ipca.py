"""The Monte Carlo of Gu, Kelly and Xiu (2021) at its full 100 repetitions; its table is in docs/published-checks.md."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.published_ipca import PUBLISHED, Loadings, out_of_sample


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a", "b"])
def test_out_of_sample_total_r2_of_ipca_is_the_published_one(kind: Loadings) -> None:
    found = out_of_sample(kind, 100).mean(axis=0)
    np.testing.assert_allclose(found, PUBLISHED[kind], atol=0.5)
