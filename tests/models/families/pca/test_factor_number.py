from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from models.families.pca.factor_number import RULES, Spectrum, ahn_horenstein, bai_ng, choose_factors, onatski
from schemas.errors import ConfigError, ModelError


def simulated(n_dates: int, n_stocks: int, n_factors: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """X = F L' + sqrt(noise) e with entries N(0, 1): Bai and Ng (2002, table 1) with noise = n_factors."""
    common = rng.standard_normal((n_dates, n_factors)) @ rng.standard_normal((n_factors, n_stocks))
    return common + np.sqrt(noise) * rng.standard_normal((n_dates, n_stocks))


def correlated(n_dates: int, n_stocks: int, n_factors: int, rng: np.random.Generator) -> np.ndarray:
    """Residuals in the manner of Ahn and Horenstein (2013): AR(1) of .5 in time, .2 of 8 neighbours on either side."""
    innovations = rng.standard_normal((n_dates + 50, n_stocks))
    local = sum((np.roll(innovations, shift, axis=1) for shift in (*range(-8, 0), *range(1, 9))), np.zeros(1))
    shocks = innovations + 0.2 * local
    errors = np.zeros_like(shocks)
    for t in range(1, len(shocks)):
        errors[t] = 0.5 * errors[t - 1] + shocks[t]
    errors = errors[50:] * np.sqrt((1.0 - 0.25) / (1.0 + 2 * 8 * 0.04))
    common = rng.standard_normal((n_dates, n_factors)) @ rng.standard_normal((n_factors, n_stocks))
    return common + np.sqrt(n_factors) * errors


@pytest.mark.parametrize(("n_dates", "n_stocks", "n_factors"), [(60, 100, 1), (100, 60, 3), (100, 100, 5)])
@pytest.mark.parametrize("rule", RULES)
def test_rules_recover_the_number_of_factors(n_dates: int, n_stocks: int, n_factors: int, rule: str) -> None:
    rng = np.random.default_rng(1)
    found = [
        choose_factors(Spectrum.of(simulated(n_dates, n_stocks, n_factors, n_factors, rng)), rule, 8) for _ in range(20)
    ]
    assert np.mean(np.array(found) == n_factors) >= 0.9


@pytest.mark.parametrize("rule", ["onatski", "ahn_horenstein"])
def test_correlated_residuals_do_not_mislead_the_rules_made_for_them(rule: str) -> None:
    rng = np.random.default_rng(2)
    spectra = [Spectrum.of(correlated(150, 150, 3, rng)) for _ in range(20)]
    assert np.mean([choose_factors(one, rule, 8) == 3 for one in spectra]) >= 0.9
    # Bai and Ng's own criteria count neighbours as factors there, which is what the other two were made for
    assert np.mean([choose_factors(one, "bai_ng", 8) for one in spectra]) > 3.5


def test_pure_noise_has_no_factor_by_any_rule() -> None:
    spectrum = Spectrum.of(np.random.default_rng(3).standard_normal((120, 100)))
    assert [choose_factors(spectrum, rule, 8) for rule in RULES] == [0, 0, 0]


def test_information_criteria_agree_with_statsmodels_but_for_their_unit() -> None:
    values = simulated(80, 40, 3, 3.0, np.random.default_rng(4))
    peer = sm.PCA(values, ncomp=10, standardize=False, demean=True)
    ours = bai_ng(Spectrum.of(values), 10)
    for column, name in enumerate(("ic_p1", "ic_p2", "ic_p3")):
        theirs = peer.ic[:, column] - np.log(values.size)  # of the sum of squares instead of the mean
        np.testing.assert_allclose(ours[name].values, theirs, atol=1e-10)


def test_criteria_are_those_of_their_formulas() -> None:
    values = simulated(50, 30, 2, 2.0, np.random.default_rng(5))
    centred = values - values.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(centred.T @ centred / centred.size))[::-1]
    left = [eigenvalues[k:].sum() for k in range(8)]
    found = ahn_horenstein(Spectrum.of(values), 5)
    np.testing.assert_allclose(found["er"].values[1:], eigenvalues[:5] / eigenvalues[1:6], rtol=1e-10)
    growth = [np.log(left[k - 1] / left[k]) / np.log(left[k] / left[k + 1]) for k in range(1, 6)]
    np.testing.assert_allclose(found["gr"].values[1:], growth, rtol=1e-10)
    mock = left[0] / np.log(30)
    np.testing.assert_allclose(found["er"].values[0], mock / eigenvalues[0], rtol=1e-10)
    np.testing.assert_allclose(
        found["gr"].values[0], np.log1p(mock / left[0]) / np.log1p(eigenvalues[0] / left[1]), rtol=1e-10
    )
    pc = bai_ng(Spectrum.of(values), 5)["pc_p2"].values
    np.testing.assert_allclose(pc[2], left[2] + 2 * left[5] * 80 / 1500 * np.log(30), rtol=1e-10)


def test_onatski_stops_at_the_last_gap_above_the_edge() -> None:
    tail = 1.0 - 0.1 * np.arange(8, 28) ** (2.0 / 3.0) / 8.0  # on the line that the edge follows: slope -0.0125
    for gap, expected in ((0.03, 4), (0.02, 3)):  # twice the slope is 0.025
        values = np.concatenate([[9.0, 6.0, 3.0, tail[0] + gap], tail])
        assert onatski(Spectrum(values, values.sum(), 100, 100), 6) == expected


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-4, 1.0, 50.0]), transposed=st.booleans())
def test_rules_know_neither_units_nor_order_nor_which_side_is_time(seed: int, scale: float, transposed: bool) -> None:
    rng = np.random.default_rng(seed)
    values = simulated(40, 50, 2, 2.0, rng)
    shuffled = scale * values[rng.permutation(40)][:, rng.permutation(50)]
    other = shuffled.T if transposed else shuffled
    for rule in RULES:
        before = choose_factors(Spectrum.of(values, demean=False), rule, 6)
        assert choose_factors(Spectrum.of(other, demean=False), rule, 6) == before


def test_what_cannot_be_decided_is_refused() -> None:
    values = np.random.default_rng(0).standard_normal((12, 9))
    with pytest.raises(
        ModelError, match="max_factors=5 needs 10 dates, stocks and eigenvalues; the panel has 12 dates, 9"
    ):
        onatski(Spectrum.of(values), 5)
    with pytest.raises(ConfigError, match="'kaiser' is no rule"):
        choose_factors(Spectrum.of(values), "kaiser", 2)
    values[0, 0] = np.nan
    with pytest.raises(ModelError, match="complete"):
        Spectrum.of(values)
