"""Paired: whether two heads that have seen the same images differ, and by how much.

In: for each of N images whether each head was right, and its loss. Out: p values, intervals, and
how many images it would take. Pairing matters: two heads err on mostly the same images, so their
difference is known far better than either's score.
Not here: where the images come from (compare.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlkit.metrics import NORMAL_95

Floats = NDArray[np.float64]

DRAWS = 5000
"""Of the bootstrap."""

NUMBERS = 1 << 22
"""That are drawn at once."""

POWER, LEVEL = 0.8, 0.05


def mcnemar(one_alone: int, other_alone: int) -> float:
    """The exact p value of McNemar's test (1947, doi 10.1007/BF02295996), two-sided.

    `one_alone` images are right by the one head alone, `other_alone` by the other. If both are as
    good, each of these is the one's or the other's with a chance of a half; the others say nothing.
    """
    from scipy.stats import binomtest

    if one_alone + other_alone == 0:
        return 1.0
    return float(binomtest(one_alone, one_alone + other_alone, 0.5).pvalue)


def accuracy_interval(one_alone: int, other_alone: int, images: int) -> tuple[float, float]:
    """A 95 % interval of the difference between two accuracies on the same images.

    Agresti and Min 2005 (doi 10.1002/sim.1781): Wald's, with half an image more in each of the four
    cells. Where the heads hardly ever differ, what was not seen may still be there: a bootstrap
    would have no width then.
    """
    one, other, count = one_alone + 0.5, other_alone + 0.5, images + 2
    middle = (one - other) / count
    error = math.sqrt(one + other - (one - other) ** 2 / count) / count
    return max(-1.0, middle - NORMAL_95 * error), min(1.0, middle + NORMAL_95 * error)


def interval(differences: Floats, *, seed: int) -> tuple[float, float]:
    """A 95 % interval of the mean of (N,) differences: the percentiles of a bootstrap.

    Plain and paired: images are drawn from all, with what every head made of them (Efron and
    Tibshirani 1993, chapter 13). So other images of the same kind are meant, with classes as
    frequent as here, give or take chance.
    """
    from scipy.stats import bootstrap

    if len(differences) < 2 or np.ptp(differences) == 0:
        mean = float(differences.mean())
        return mean, mean
    found = bootstrap(
        (differences,), np.mean, n_resamples=DRAWS, method="percentile",
        batch=max(1, NUMBERS // len(differences)), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def holm(values: Sequence[float]) -> list[float]:
    """The p values of M tests, so that the chance of any false alarm stays below the level.

    Holm 1979: the smallest counts M times, the next M - 1 times, and none less than one before it.
    """
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(values)[order] * factors))
    found = np.empty(len(values))
    found[order] = adjusted
    return [float(one) for one in found]


def images_needed(one_alone: int, other_alone: int, images: int, *, tests: int = 1) -> int | None:
    """How many images would tell two heads apart, four times out of five, at the 5 % level.

    If they differ as they did on these. Connor 1987 (doi 10.2307/2531961): with the shares of
    discordant images s and of their difference d, (z sqrt(s) + z' sqrt(s - d^2))^2 / d^2; the level
    is shared among `tests`. None where there is no difference.
    """
    from scipy.stats import norm

    share = (one_alone + other_alone) / images
    difference = abs(one_alone - other_alone) / images
    if difference == 0:
        return None
    level, power = float(norm.isf(LEVEL / tests / 2)), float(norm.ppf(POWER))
    root = level * math.sqrt(share) + power * math.sqrt(share - difference**2)
    return math.ceil((root / difference) ** 2)
