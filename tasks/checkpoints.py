"""States of the estimators of risk, kept in the work store by what they follow from.

A state is named by the fit, by the chained digest of the data at its last date, and by the estimators: a retrain leaves
the ones from which the first update goes on, and a restated date leaves those before it valid and none after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from models.arrays import under
from models.families.base import ModelState
from models.forecasting.following import KEPT_DATES, RiskState
from models.panel.digests import DataDigests
from schemas.base import digest
from schemas.refs import Key
from schemas.spec import RunSpec
from storage.work import Kind
from tasks.provenance import key
from tasks.stages import Stage
from tasks.workspace import Workspace


def fit_identity(code: str, kind: str, params: Mapping[str, Any], state: ModelState) -> str:
    """Hash of all that a fitted model knows: the same for the one in a retrain and the one read back from a version.

    The code is that of `tasks.stages.Stage.STATES`, for the family and those that it needs.
    """
    arrays = {
        name: [str(array.dtype), [*array.shape], hashlib.sha256(array.tobytes()).hexdigest()]
        for name, array in state.arrays.items()
    }
    return digest([code, kind, {**params}, arrays, state.meta])


def estimated(spec: RunSpec) -> dict[str, Any]:
    """Say how Omega and specific variance are estimated; what calibrates them comes after."""
    return spec.risk.model_dump(mode="json", exclude={"calibration"})


class KeptStates:
    """The states that follow from one fit and one set of data (`models.forecasting.following.Checkpoints`)."""

    def __init__(self, space: Workspace, fit: str, inputs: DataDigests, spec: RunSpec) -> None:
        self._space = space
        self._inputs = inputs
        self._facts = {
            "fit": fit,
            "panel": spec.panel.model_dump(mode="json", exclude={"start", "end"}),
            "risk": estimated(spec),
        }

    def find(self, n_dates: int, since: int) -> RiskState | None:
        """Return the last state that is kept of at most so many dates, of those from a position on."""
        block = n_dates // KEPT_DATES * KEPT_DATES
        for count in (*range(n_dates, block, -1), *range(block, since, -KEPT_DATES)):
            name = self._name(count, since)
            if self._space.work.has(Kind.RISK_STATES, name):
                arrays, meta = self._space.work.get_arrays(Kind.RISK_STATES, name)
                parts = {part: under(f"{part}.", arrays) for part in ("covariance", "specific")}
                return RiskState(n_dates=count, since=since, tickers=tuple(meta["tickers"]), **parts)
        return None

    def keep(self, state: RiskState) -> None:
        """Keep a state, unless it is there."""
        arrays = {f"covariance.{name}": array for name, array in state.covariance.items()}
        arrays |= {f"specific.{name}": array for name, array in state.specific.items()}
        name = self._name(state.n_dates, state.since)
        self._space.work.put_arrays(Kind.RISK_STATES, name, arrays, {"tickers": state.tickers})

    def _name(self, n_dates: int, since: int) -> Key:
        data = self._inputs.digests[n_dates - 1]
        return key(Stage.STATES.code(), inputs=data, dates=n_dates, since=since, **self._facts)
