"""Calibration: probabilities that mean what they say.

In: probabilities (N, C) of images that the head did not learn from, and their classes. Out: a
`Calibration` for the card: the temperature that puts them right, and how sure a head must be to be
right as often as one wants.
Temperature scaling: Guo et al. 2017, arXiv 1706.04599. The order of the classes never changes.
Not here: how far off probabilities are (metrics.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlkit.card import QUANTILES, Calibration
from tlkit.metrics import logs, softmax

Floats = NDArray[np.float64]

SPREAD = 0.5
"""Standard deviation of the logarithm of a temperature before any image was seen: few images that
are all right say little, and would have a temperature of nought."""

RANGE = (0.05, 20.0)
"""Temperatures that are tried."""

SHARES = np.linspace(0, 1, QUANTILES)

MOST_STEPS = 100
"""Thresholds in a card."""


def calibration_of(
    probabilities: Floats, labels: NDArray[np.int64], similarities: Floats | None = None
) -> Calibration:
    """What images that a head did not learn from tell of its probabilities (N, C).

    `similarities` (N,) say how near each is to what was learnt from, where that is known.
    """
    temperature = temperature_of(probabilities, labels)
    return Calibration(
        images=len(labels),
        temperature=temperature,
        thresholds=thresholds_of(tempered(probabilities, temperature), labels),
        similarities=()
        if similarities is None
        else tuple(float(one) for one in np.quantile(similarities, SHARES)),
    )


def familiarity(calibration: Calibration, similarity: float) -> float:
    """The share of the validation images that are less like what was learnt from."""
    return float(np.interp(similarity, calibration.similarities, SHARES))


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """softmax(logits / T) of what softmax(logits) are, (..., C)."""
    return softmax(logs(probabilities) / temperature)


def temperature_of(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """The likeliest temperature of probabilities (N, C), given their classes and `SPREAD`."""
    from_probabilities = logs(probabilities)
    rows = np.arange(len(labels))

    def cost(step: float) -> float:
        """Of the logarithm of a temperature."""
        scaled = from_probabilities / np.exp(step)
        top = scaled.max(axis=1)
        whole = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((whole - scaled[rows, labels]).sum() + step**2 / (2 * SPREAD**2))

    # A search in ever finer grids: scipy's takes longer to import than this to run.
    low, high = np.log(RANGE)
    for _ in range(5):
        grid = np.linspace(low, high, 21)
        at = int(np.argmin([cost(step) for step in grid]))
        low, high = grid[max(0, at - 1)], grid[min(20, at + 1)]
    return round(float(np.exp((low + high) / 2)), 4)


def thresholds_of(
    probabilities: Floats, labels: NDArray[np.int64]
) -> tuple[tuple[float, float], ...]:
    """(probability, share that is right of the images at least that sure), both growing.

    Of two thresholds that are right as often, the lower one, which answers more, is in it alone.
    Where there is no image, there is none.
    """
    sure = probabilities.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    right = probabilities.argmax(axis=1)[order] == labels[order]
    share = np.cumsum(right) / np.arange(1, len(order) + 1)
    # Of those that are equally sure, all count or none.
    last = np.append(np.diff(sure[order]) != 0, True)[: len(order)]
    found: list[tuple[float, float]] = []
    for probability, one in zip(sure[order][last][::-1], share[last][::-1], strict=True):
        if not found or one > found[-1][1]:
            found.append((float(probability), float(one)))
    if len(found) > MOST_STEPS:
        kept = np.linspace(0, len(found) - 1, MOST_STEPS).round().astype(int)
        found = [found[i] for i in kept]
    return tuple(found)


def threshold_for(calibration: Calibration, precision: float) -> float | None:
    """The lowest probability from which on so large a share is right; None where none reaches it.

    As often as on the images that the calibration is from.
    """
    return next((one for one, share in calibration.thresholds if share >= precision), None)
