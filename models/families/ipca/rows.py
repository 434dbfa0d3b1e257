"""The two steps of alternating least squares on the rows of a panel, by QR instead of normal equations.

Here belongs the panel mode of IPCA alone. The rows of each date are reduced once to the triangle of [Z, r] = Q R, which
loses nothing that least squares can see; what `steps` computes from Z'Z, whose condition number is the square of that
of Z, is computed here from R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from models.arrays import FloatArray
from models.families.ipca.steps import Moments, Projection, rank_message
from models.panel import Panel
from models.statistics.gram import RANK_TOLERANCE, date_spans
from schemas.errors import ModelError

_ROWS_AT_ONCE = 4_000_000  # cells of the stacked design held at once: 32 MB
_RANK = RANK_TOLERANCE**0.5


def row_triangles(panel: Panel) -> FloatArray:
    """(date, L + 1, L + 1) triangles R of [Z, r] over the rows of ``panel.mask``; zero on dates without a row."""
    size = len(panel.chars) + 1
    parts = []
    for block in panel.blocks():
        known = block.mask.values[..., None]
        returns, values = block.returns.values[..., None], block.characteristics.values
        n_dates, n_stocks = known.shape[:2]
        triangles = np.zeros((n_dates, size, size))
        for span in date_spans(n_dates, n_stocks * size):
            joint = np.concatenate([values[span], returns[span]], axis=2, dtype=np.float64)
            triangle = np.asarray(np.linalg.qr(np.where(known[span], joint, 0.0), mode="r"))
            triangles[span, : triangle.shape[1]] = triangle
        parts.append(triangles)
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class RowSteps:
    """Steps as those of `Moments`, from the triangles of its dates.

    Attributes
    ----------
    moments : Moments
        Of the same rows: which dates are usable, and the given series.
    triangles : numpy.ndarray
        (date, L + 1, L + 1).
    """

    moments: Moments
    triangles: FloatArray

    @property
    def n_factors(self) -> int:
        """K."""
        return self.moments.n_factors

    def project(self, coefficients: FloatArray) -> Projection:
        """Regress r on Z Gamma date by date; dates on which Z Gamma has not full rank are not kept."""
        k, given = self.n_factors, self.moments.given
        target = self.triangles[..., -1]
        design = self.triangles[..., :-1] @ coefficients
        regressors = np.concatenate([np.zeros((len(given), k)), given], axis=1)
        kept = self.moments.usable.copy()
        if k:
            orthogonal, triangle = np.linalg.qr(design[..., :k])
            right = target - (design[..., k:] @ given[..., None])[..., 0]
            length = np.sqrt(np.square(triangle).sum(axis=1))
            kept &= (np.abs(np.diagonal(triangle, axis1=1, axis2=2)) > _RANK * length).all(axis=1)
            triangle[~kept] = np.eye(k)
            moment = (right[:, None, :] @ orthogonal)[:, 0]
            regressors[:, :k] = np.linalg.solve(triangle, moment[..., None])[..., 0]
        regressors[~kept] = 0.0
        fitted = (design @ regressors[..., None])[..., 0]
        explained = ((2.0 * target - fitted) * fitted)[kept].sum()
        return Projection(regressors, kept, float(explained))

    def update(self, projection: Projection) -> FloatArray:
        """Regress r on the products of characteristics and factors over all rows, span by span of dates.

        Raises
        ------
        ModelError
            If the factors do not identify Gamma.
        """
        regressors = projection.regressors
        n_dates, height = self.triangles.shape[:2]
        n_chars, size = height - 1, regressors.shape[1]
        width = size * n_chars
        total = np.zeros((0, width + 1))
        step = max(1, _ROWS_AT_ONCE // (height * width))
        for begin in range(0, n_dates, step):
            span = slice(begin, begin + step)
            kept = projection.kept[span]
            triangles = self.triangles[span][kept]
            rows = np.empty((len(triangles), height, width + 1))
            products = regressors[span][kept][:, None, :, None] * triangles[:, :, None, :-1]
            rows[..., :-1] = products.reshape(len(triangles), height, width)
            rows[..., -1] = triangles[..., -1]
            total = np.asarray(np.linalg.qr(np.concatenate([total, rows.reshape(-1, width + 1)]), mode="r"))
        corner = total[:width, :width]
        length = np.sqrt(np.square(corner).sum(axis=0))
        if len(corner) < width or not (np.abs(np.diagonal(corner)) > _RANK * length).all():
            raise ModelError(rank_message(self.n_factors))
        solution = scipy.linalg.solve_triangular(corner, total[:width, -1])
        return np.ascontiguousarray(solution.reshape(size, n_chars).T)
