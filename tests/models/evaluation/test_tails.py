"""Back-tests of tails against what is published of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from models.evaluation import tails


def hits_of(number: int, total: int) -> np.ndarray:
    return np.where(np.arange(total) < number, 1.0, 0.0)[:, None]


@pytest.mark.parametrize(
    ("level", "total", "first", "last"),
    [
        (0.99, 255, 0, 6), (0.99, 510, 2, 10), (0.99, 1000, 5, 16),
        (0.975, 255, 3, 11), (0.975, 510, 7, 20), (0.975, 1000, 16, 35),
        (0.95, 255, 7, 20), (0.95, 510, 17, 35), (0.95, 1000, 38, 64),
        (0.90, 255, 17, 35), (0.90, 510, 39, 64), (0.90, 1000, 82, 119),
    ],
)  # fmt: skip
def test_kupiec_does_not_reject_the_numbers_of_his_table(level: float, total: int, first: int, last: int) -> None:
    """Non-rejection regions at 95 % confidence: Kupiec (1995), table 3, as in Jorion, Value at Risk, table 6-2.

    At 99 % and 255 dates the table has N < 7; no violation at all gives 5.13 by the formula, and is rejected.
    """
    inside = [number for number in range(total // 4) if tails.kupiec(hits_of(number, total), level)[1][0] >= 0.05]
    assert inside[-1] == last
    assert inside[0] == (1 if first == 0 else first)


def test_christoffersen_is_the_likelihood_ratio_of_its_chain() -> None:
    rng = np.random.default_rng(0)
    hits = np.zeros((600, 2))
    for t in range(1, 600):
        hits[t] = rng.random(2) < np.where(hits[t - 1] == 1.0, [0.4, 0.03], 0.03)
    found = tails.christoffersen(hits, 0.97)
    for place in range(2):
        before, after = hits[:-1, place], hits[1:, place]
        chances = [after[before == was].mean() for was in (0, 1)]
        chain = np.where(before == 1, chances[1], chances[0])
        ratio = {
            name: 2.0 * (stats.bernoulli.logpmf(after, chain) - stats.bernoulli.logpmf(after, p)).sum()
            for name, p in (("independence", after.mean()), ("conditional", 0.03))
        }
        assert found.independence[place] == pytest.approx(ratio["independence"], abs=1e-9)
        assert found.conditional[place] == pytest.approx(ratio["conditional"], abs=1e-9)
        assert found.conditional_p[place] == pytest.approx(stats.chi2.sf(ratio["conditional"], 2), rel=1e-9)
    assert found.independence_p[0] < 1e-4
    assert found.independence_p[1] > 0.01


@pytest.mark.parametrize("degrees", [None, 5.0])
def test_a_tail_has_its_quantile_and_the_mean_beyond_it(degrees: float | None) -> None:
    scale = 1.0 if degrees is None else np.sqrt(1 - 2 / degrees)
    law = stats.norm() if degrees is None else stats.t(degrees, scale=scale)
    beyond = tails.tail(0.975, degrees)
    assert law.cdf(-beyond.quantile) == pytest.approx(0.025, rel=1e-9)
    mean = integrate.quad(lambda x: x * law.pdf(x), -np.inf, -beyond.quantile)[0] / 0.025
    assert beyond.shortfall == pytest.approx(-mean, rel=1e-6)


@pytest.mark.parametrize("degrees", [None, 5.0, 100.0])
def test_z2_has_the_published_critical_value(degrees: float | None) -> None:
    """Acerbi and Szekely (2014): at 97.5 % and 250 days about -.7 is the 5 % quantile of Z2, -.70 to -.82 by tail."""
    rng = np.random.default_rng(1)
    shape = (250, 20_000)
    z = rng.standard_normal(shape) if degrees is None else rng.standard_t(degrees, shape) * np.sqrt(1 - 2 / degrees)
    found = tails.acerbi_szekely(z, tails.tail(0.975, degrees), n_simulations=5000)
    assert np.quantile(found.z2, 0.05) == pytest.approx(-0.72, abs=0.05)
    assert np.mean(found.z2) == pytest.approx(0.0, abs=0.01)
    assert np.nanmean(found.z1) == pytest.approx(0.0, abs=0.02)
    assert np.mean(found.z2_p < 0.05) == pytest.approx(0.05, abs=0.01)
    assert np.nanmean(found.z1_p < 0.05) == pytest.approx(0.05, abs=0.01)


def test_shortfall_that_is_too_small_is_found_and_gaps_are_left_out() -> None:
    rng = np.random.default_rng(2)
    z = 1.3 * rng.standard_normal((500, 20))
    found = tails.acerbi_szekely(z, tails.tail(0.975))
    assert np.mean(found.z2_p < 0.05) > 0.9
    gaps = np.insert(z, [0, 250], np.nan, axis=0)
    again = tails.acerbi_szekely(gaps, tails.tail(0.975))
    np.testing.assert_array_equal(again.z2_p, found.z2_p)
    np.testing.assert_allclose(again.z2, found.z2, rtol=1e-12)
    calm = tails.acerbi_szekely(np.full((100, 1), 0.1), tails.tail(0.975))
    assert (calm.z2[0], calm.z2_p[0]) == (1.0, 1.0)
    assert np.isnan(calm.z1[0])


def test_basel_zones_are_those_of_the_committee() -> None:
    zones = [tails.basel_zone(number) for number in range(12)]
    assert zones == ["green"] * 5 + ["yellow"] * 5 + ["red"] * 2
