"""What missing returns are expected to be, and the matrix of which are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.families.pca import completion
from models.families.pca.completion import Missing

LACKS = st.tuples(st.integers(0, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.bool_, shape))


@pytest.mark.parametrize("few", [-1.0, 2.0], ids=["dense", "sparse"])
@given(lacks=LACKS, seed=st.integers(0, 99))
def test_products_are_those_of_the_matrix_however_it_is_kept(few, lacks, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion, "_FEW", few)
        missing = Missing(lacks)
    by_ticker, by_pattern = (rng.normal(size=(size, 3)) for size in lacks.shape[::-1])
    np.testing.assert_allclose(missing.times(by_ticker), lacks @ by_ticker, atol=1e-13)
    np.testing.assert_allclose(missing.times_known(by_ticker), ~lacks @ by_ticker, atol=1e-13)
    np.testing.assert_allclose(missing.transposed_times(by_pattern), lacks.T @ by_pattern, atol=1e-13)
