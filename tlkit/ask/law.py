"""Law: how an error falls with the number of photos, from what was measured at a few numbers.

In: errors of heads that learnt from growing numbers of photos, with their covariance. Out: a `Law`:
power laws error(n) = a + b * n^-c, many of them, each as likely as what was measured makes it.
Pure. Next door: curve.py (measuring the errors).

Learning curves of classifiers are well described by a power law above a floor (Cortes et al. 1993,
"Learning curves: asymptotic values and rate of convergence", NeurIPS 6; Hestness et al. 2017, arXiv
1712.00409; Viering and Loog 2021, arXiv 2103.10948). A few points leave floor and exponent open:
one steep and high above its floor fits as well as one that is flat and has none, and twice the
photos tell them apart. So no single law is taken. All are weighed by their likelihood (Gaussian,
with the covariance of the points), over even priors for the exponent
and for the floor's share, which may be nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LAWS = 4000
"""Laws that are drawn: the ends of an interval are then steady to a few hundredths of it."""

SURE = 0.95
"""Share of the laws between the ends of an interval."""

STEEPEST = 2.0
"""Largest exponent. Heads on features were seen at 0.1 to 1; simpler problems may be above."""

FLOORS, EXPONENTS = 32, 40
"""Points of the grid."""

NO_FLOOR, FLAT = 0.4, 0.1
"""Prior shares of laws without a floor, and of no fall at all; the other floors are even. Without
them a curve that is one of the two would lie beyond nearly all laws, and outside the interval."""

LEAN = 0.9
"""What is taken of the correlation between two points: it is estimated from few photos."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and where it lies in `SURE` of all cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Law:
    """L power laws: error(n) = level * (floor + (1 - floor) * (n / reference)^-exponent)."""

    reference: float
    """The number of photos at which the error is the level: the largest measured."""
    level: NDArray[np.float64]
    """(L,)"""
    floor: NDArray[np.float64]
    """(L,) the share of the level that no number of photos takes away."""
    exponent: NDArray[np.float64]
    """(L,)"""
    best: tuple[float, float, float]
    """a, b and c of the likeliest law, error = a + b * n^-c."""
    misfit: float
    """Chi-squared of the likeliest law per degree of freedom; above 1 it has widened the law."""

    def errors(self, photos: float) -> NDArray[np.float64]:
        """(L,) at so many photos."""
        falls = (photos / self.reference) ** -self.exponent
        return np.minimum(self.level * (self.floor + (1 - self.floor) * falls), 1.0)

    def accuracy(self, photos: float) -> Interval:
        """Expected at so many photos. Never lower with more of them."""
        return interval(1 - self.errors(photos))

    def gains(self, photos: float, times: float) -> NDArray[np.float64]:
        """(L,) by how much so many times the photos raise the accuracy; 0 or more."""
        return self.errors(photos) - self.errors(photos * times)


def interval(values: NDArray[np.float64]) -> Interval:
    """Median, and the quantiles that leave out as much on either side."""
    low, value, high = np.quantile(values, [(1 - SURE) / 2, 0.5, (1 + SURE) / 2])
    return Interval(value=float(value), low=float(low), high=float(high))


def fit_law(
    photos: NDArray[np.float64],
    errors: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    judged: int,
    seed: int = 0,
) -> Law:
    """The laws behind errors (S,) of heads that learnt from `photos` (S,), growing numbers.

    `covariance` (S, S) is that of the errors; `judged` photos have told them. Where the points lie
    further from every law than they should, it is scaled up until the best fits (Birge 1932).
    """
    covariance = _steady(covariance, judged)
    reference = float(photos[-1])
    floor, exponent = (
        one.ravel()
        for one in np.meshgrid(
            np.linspace(0, 1, FLOORS + 1),
            (np.arange(EXPONENTS) + 0.5) / EXPONENTS * STEEPEST,
            indexing="ij",
        )
    )
    shape = floor[:, None] + (1 - floor[:, None]) * (photos / reference) ** -exponent[:, None]
    # Generalised least squares: the level of each shape, its variance, what remains.
    weighed = np.linalg.solve(covariance, shape.T).T
    variance = 1 / (weighed * shape).sum(axis=1)
    level = variance * (weighed @ errors)
    rest = errors - level[:, None] * shape
    chi = (np.linalg.solve(covariance, rest.T).T * rest).sum(axis=1)
    misfit = float(chi.min()) / max(1, len(photos) - 3)
    scale = max(1.0, misfit)
    between = (1 - NO_FLOOR - FLAT) / (FLOORS - 1)
    prior = np.select([floor == 0, floor == 1], [NO_FLOOR, FLAT], between)
    weights = prior * np.sqrt(variance) * np.exp(-(chi - chi.min()) / (2 * scale))
    at = int(np.argmin(chi))
    a = max(0.0, float(level[at])) * floor[at]
    b = max(0.0, float(level[at])) * (1 - floor[at]) * reference ** exponent[at]
    draw = np.random.default_rng([seed, len(photos)])
    taken = draw.choice(len(weights), LAWS, p=weights / weights.sum())
    return Law(
        reference=reference,
        level=_levels(level[taken], variance[taken] * scale, judged, draw),
        floor=floor[taken],
        exponent=exponent[taken],
        best=(float(a), float(b), float(exponent[at])),
        misfit=misfit,
    )


def _steady(covariance: NDArray[np.float64], judged: int) -> NDArray[np.float64]:
    """The covariance with what few photos do not show: where none was wrong, one might have been.

    Half an error of `judged` photos is the variance that Jeffreys' prior leaves to no error at all.
    """
    half = 0.5 / judged**2
    every = np.eye(len(covariance))
    return covariance * (LEAN + (1 - LEAN) * every) + half * (1 + every / 2)


def _levels(
    level: NDArray[np.float64],
    variance: NDArray[np.float64],
    judged: int,
    draw: np.random.Generator,
) -> NDArray[np.float64]:
    """A level for each law: Beta, with the mean and variance; for independent photos Jeffreys'."""
    mean = (np.clip(level, 0, 1) * judged + 0.5) / (judged + 1)
    counts = np.maximum(mean * (1 - mean) / variance, 1.0)
    return draw.beta(mean * counts, (1 - mean) * counts)


def spread_of(
    wrong: NDArray[np.float64], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean errors (S,), and their covariance (S, S), of judgements (M, S) of photos.

    A judgement is by the heads of one draw, one for each number of photos; `owner` (M,) tells whose
    of J photos it is. The covariance is that of a mean over photos drawn anew.
    """
    count = np.bincount(owner).astype(np.float64)
    sums = np.stack([np.bincount(owner, one) for one in wrong.T], axis=1)
    mean = sums.sum(axis=0) / count.sum()
    off = sums - count[:, None] * mean
    photos = len(count)
    scale = photos / max(1, photos - 1) / count.sum() ** 2
    return mean, off.T @ off * scale


def luck_of(wrong: NDArray[np.float64], draw: NDArray[np.int64]) -> NDArray[np.float64]:
    """(S,) variance of the mean errors that comes from which photos were learnt from.

    How much more the draws' means differ than means of so many photos do. `draw` (M,) tells by the
    heads of which draw a judgement is.
    """
    names = np.unique(draw)
    if len(names) < 2:
        return np.zeros(wrong.shape[1])
    parts = [wrong[draw == one] for one in names]
    means = np.stack([one.mean(axis=0) for one in parts])
    within = np.mean([one.var(axis=0) / max(1, len(one) - 1) for one in parts], axis=0)
    more: NDArray[np.float64] = np.maximum(0, means.var(axis=0, ddof=1) - within) / len(names)
    return more
