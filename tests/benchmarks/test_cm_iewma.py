"""Regret of CM-IEWMA on five Fama-French factors; its table is in docs/published-checks.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.cm_iewma import OTHERS, factor_returns, predicted, regret


@pytest.mark.shared_data
def test_regret_is_no_greater_than_that_of_others(shared_data: Path) -> None:
    returns = factor_returns(str(shared_data / "ff5_daily.parquet"))
    for name, omega in predicted(returns).items():
        found = regret(returns, omega)
        measured = (found.mean(), found.std(ddof=0), found.max())
        np.testing.assert_allclose(measured, OTHERS[name], rtol=0.003, atol=0.0006)
        assert round(found.mean(), 3) <= OTHERS[name][0]
