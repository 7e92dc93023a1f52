import numpy as np
import pytest
from scipy import stats

from senet_jax.analysis.statistics import Difference, Estimate, correct, difference, estimate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_an_interval_is_that_of_students_t(count):
    values = (20 + RNG.standard_normal(count)).tolist()
    found = estimate(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-12)
    assert found.mean == pytest.approx(stats.tmean(values))
    assert found.std == pytest.approx(stats.tstd(values))
    assert found.count == count


def test_one_seed_has_no_interval():
    assert estimate([7.5]) == Estimate(7.5, None, None, None, 1)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_difference_is_paired_by_seed(count):
    a, b = RNG.standard_normal((2, count))
    found = difference(
        dict(enumerate(a.tolist())), dict(reversed([*enumerate(b.tolist()), (99, 5.0)]))
    )
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-12)
    assert found.estimate.mean == pytest.approx(np.mean(a - b))


def test_no_pair_gives_no_difference_and_one_pair_no_test():
    assert difference({0: 1.0}, {1: 2.0}) is None
    single = difference({0: 1.0, 1: 4.0}, {1: 2.0})
    assert single == Difference(Estimate(2.0, None, None, None, 1), None)
    assert single.significant is None


def test_differences_that_are_all_equal_are_not_tested():
    # Two images more of 360, for either seed: the gaps are equal up to rounding.
    baseline = {0: 100 * (1 - 351 / 360), 1: 100 * (1 - 349 / 360)}
    found = difference({0: 100 * (1 - 349 / 360), 1: 100 * (1 - 347 / 360)}, baseline)
    assert found.p is None
    assert found.estimate == Estimate(pytest.approx(200 / 360), 0.0, None, None, 2)
    assert correct([found])[0].significant is None


def test_equal_results_are_no_difference():
    found = difference({0: 3.0, 1: 2.0}, {0: 3.0, 1: 2.0})
    assert (found.p, found.estimate.mean) == (1.0, 0.0)


def test_p_values_are_corrected_by_holm():
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 as 0.06, and 0.04 x 1, which may not be less.
    ps = [0.03, 0.01, None, 0.04, 0.02]
    estimated = Estimate(1.0, 1.0, 0.0, 2.0, 3)
    given = [Difference(estimated, p) for p in ps] + [None]
    found = correct(given)
    assert [each and each.corrected_p for each in found] == pytest.approx(
        [0.06, 0.04, None, 0.06, 0.06, None]
    )
    assert [each.significant for each in found[:-1]] == [False, True, None, False, False]
    assert correct([Difference(estimated, 0.9)] * 2)[1].corrected_p == 1.0
