"""Reject: "unsure" in the place of a name that is likely wrong.

In: what heads together make of an image. Out: whether that is to be believed.
A head's card says how often answers of which probability were right on its validation images.
Not here: probabilities (run.py), and what makes them believable at all (tlkit/calibration.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.calibration import threshold_for
from tlkit.errors import OptionError
from tlkit.options import PredictOptions

OF_PRECISION = "precision:"


def threshold_of(heads: Sequence[Head], options: PredictOptions) -> float:
    """The probability that the likeliest class must have; 0 where nothing is rejected.

    Raises `OptionError` for a text that is none, and for a precision that cannot be promised.
    """
    text = options.reject_below
    if not text:
        return 0.0
    of_precision = text.startswith(OF_PRECISION)
    try:
        wanted = float(text.removeprefix(OF_PRECISION))
    except ValueError:
        wanted = -1.0
    if not 0 < wanted <= 1:
        _refuse(
            text, "a number above 0 and up to 1, alone or behind precision:",
            "correct it, such as --reject-below 0.9 or --reject-below precision:0.99",
        )  # fmt: skip
    if not of_precision:
        return wanted
    if len(heads) > 1:
        _refuse(
            f"{text}, for {len(heads)} heads", "one head: several have no common card",
            "give a probability, or name one head",
        )  # fmt: skip
    calibration = heads[0].card.calibration
    threshold = threshold_for(calibration, wanted)
    if threshold is None:
        best = max((share for _, share in calibration.thresholds), default=0.0)
        _refuse(
            text, f"at most {best:.4f}: of the {calibration.images} validation images that the "
            "head was sure of, however sure, no larger share was right",
            "ask for less, or give a probability",
        )  # fmt: skip
    return threshold


def believed(probabilities: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """(..., C) -> (...): whether the likeliest class is likely enough."""
    found: NDArray[np.bool_] = probabilities.max(axis=-1) >= threshold
    return found


def _refuse(found: str, expected: str, do: str) -> NoReturn:
    raise OptionError(
        "answers cannot be rejected that way",
        found=f"--reject-below {found}",
        expected=expected,
        do=do,
    )
