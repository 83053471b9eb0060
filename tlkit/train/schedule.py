"""Schedule: the factor on every learning rate, as a function of the step alone."""

from __future__ import annotations

import math

WARM_UP = 0.05
"""Share of the steps in which the rate rises: fresh heads send large gradients at first."""


def factor(step: int, steps: int) -> float:
    """A straight rise over the first 5 % of the steps, then half a cosine to zero.

    `step` counts from 0. Cosine: Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts.
    """
    rise = max(1, round(steps * WARM_UP))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
