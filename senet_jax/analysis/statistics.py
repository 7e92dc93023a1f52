"""Statistics of a few seeds: means with intervals, and differences paired by seed.

Intervals and tests are Student's t from SciPy, for samples of unknown variance; with one seed
there is neither.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Confidence of the intervals; one less it is the level of the tests."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    std: float | None
    """Standard deviation of the sample (n - 1); None of one value."""
    low: float | None
    """Lower end of the confidence interval of the mean; None of one value, or of equal ones."""
    high: float | None
    """Its upper end."""
    count: int
    """The number of seeds."""


def estimate(
    values: Sequence[float],
    within: tuple[float, float] | None = None,
    rounding: float | None = None,
) -> Estimate:
    """Mean, standard deviation and 95 % confidence interval of at least one value.

    Where all values are the same, Student's interval has no width. Of errors counted in whole
    images that is a coincidence and no certainty: there is no interval.

    Args:
        values: One of each seed.
        within: The range of the mean; the interval is cut off there, which costs it nothing. None
            means any number.
        rounding: The most that values may differ by and still be the same; None means 1e-12 of the
            largest.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, None, None, None, count)
    if rounding is None:
        rounding = _rounding(values)
    if max(values) - min(values) <= rounding:
        return Estimate(mean, 0.0, None, None, count)
    std = float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)
    low, high = within or (-math.inf, math.inf)
    return Estimate(mean, std, max(mean - reach, low), min(mean + reach, high), count)


def _rounding(values: Iterable[float]) -> float:
    return 1e-12 * max(map(abs, values))


@dataclasses.dataclass(frozen=True)
class Difference:
    """A cell less its baseline, over the seeds that both have."""

    estimate: Estimate
    p: float | None
    """The two-sided p-value of the paired t-test; None of one pair, or if all differences are the
    same."""
    corrected_p: float | None = None
    """The same corrected for the number of comparisons."""

    @property
    def significant(self) -> bool | None:
        """Tells whether the corrected p-value is below the level; None if there is no test."""
        return None if self.corrected_p is None else self.corrected_p < 1 - LEVEL


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Compares a cell with its baseline, paired by seed.

    Where all pairs differ by the same, the statistic divides by zero and its p-value would be zero:
    there is no test, as there is no interval.

    Args:
        values: A number of the cell by seed.
        baseline: The same of the baseline.

    Returns:
        The mean difference with its interval and the p-value; None where no seed is in both.

    Example:
        >>> errors, plain = {0: 5.0, 1: 5.5, 2: 5.2}, {0: 5.4, 1: 5.8, 2: 5.7}
        >>> found = difference(errors, plain)
        >>> f"{found.estimate.mean:.2f} points, p = {found.p:.3f}"
        '-0.40 points, p = 0.020'
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    gaps = [values[seed] - baseline[seed] for seed in seeds]
    rounding = _rounding(each for seed in seeds for each in (values[seed], baseline[seed]))
    found = estimate(gaps, rounding=rounding)
    if len(gaps) < 2:
        return Difference(found, None)
    if found.low is not None:
        return Difference(found, float(stats.ttest_1samp(gaps, 0.0).pvalue))
    if abs(found.mean) <= rounding:
        return Difference(dataclasses.replace(found, mean=0.0), 1.0)
    return Difference(found, None)


def correct(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Corrects the p-values for their number (Holm, 1979): the family-wise error stays 5 %."""
    tested = [each.p for each in differences if each is not None and each.p is not None]
    order = sorted(range(len(tested)), key=tested.__getitem__)
    corrected, largest = [0.0] * len(tested), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(tested) - rank) * tested[index]))
        corrected[index] = largest
    remaining = iter(corrected)
    return [
        each
        if each is None or each.p is None
        else dataclasses.replace(each, corrected_p=next(remaining))
        for each in differences
    ]
