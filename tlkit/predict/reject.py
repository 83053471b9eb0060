"""Reject: "unsure" in the place of a name that is likely wrong.

In: what heads together make of an image. Out: whether that is to be believed.
A head's card says how often answers of which probability were right on images that it had not
learnt from, and how like what was learnt from its validation images were (model/familiar.py).
Not here: probabilities (run.py), and what makes them believable at all (tlkit/calibration.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from tlkit.artifact import Head
from tlkit.calibration import threshold_for
from tlkit.errors import OptionError
from tlkit.options import PredictOptions
from tlkit.predict.run import Prediction

OF_PRECISION = "precision:"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an answer is believed."""

    likely: float
    """The probability that the likeliest class must have."""
    familiar: float
    """The familiarity that the image must have."""

    @property
    def rejects(self) -> bool:
        """Whether there is any answer that is not believed."""
        return self.likely > 0 or self.familiar > 0

    def believes(self, one: Prediction) -> bool:
        """Whether the class is likely enough and the image familiar enough."""
        known = one.familiarity is None or one.familiarity >= self.familiar
        return known and bool(one.probabilities.max() >= self.likely)


def rule_of(heads: Sequence[Head], options: PredictOptions) -> Rule:
    """What the options ask of answers. Raises `OptionError` for what the heads cannot tell."""
    strangers = [str(one.path) for one in heads if one.model.familiar is None]
    if options.reject_unlike and strangers:
        raise OptionError(
            "a head does not know what is unlike the images that it has learnt from",
            found=f"--reject-unlike {options.reject_unlike:g}, for {', '.join(strangers)}",
            expected="heads on frozen features, whose vectors are known from the fit",
            do="leave it out, or use --reject-below",
        )
    return Rule(likely=threshold_of(heads, options), familiar=options.reject_unlike)


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
    if not calibration.images:
        _refuse(
            text, "a head that images have judged: this one has learnt from one of each class",
            "give a probability, or fit with more images",
        )  # fmt: skip
    if threshold is None:
        best = max((share for _, share in calibration.thresholds), default=0.0)
        _refuse(
            text, f"at most {best:.4f}: of the {calibration.images} images that it is judged by, "
            "however sure the head was, no larger share was right",
            "ask for less, or give a probability",
        )  # fmt: skip
    return threshold


def _refuse(found: str, expected: str, do: str) -> NoReturn:
    raise OptionError(
        "answers cannot be rejected that way",
        found=f"--reject-below {found}",
        expected=expected,
        do=do,
    )
