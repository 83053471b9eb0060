"""Metrics: how good predictions are. Arrays in, numbers out; they are scikit-learn's numbers.

Not here: making predictions (predict/), showing the numbers (report/, cli/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fared."""

    name: str
    images: int
    precision: float
    """Of those called this class, the share that is. 0 where none was called so."""
    recall: float
    """Of those that are this class, the share called so. 0 where there is none."""
    f1: float


MOST_CLASSES = 100
"""Classes up to which the confusion matrix is written as a whole: it grows with their square."""

MOST_CONFUSIONS = 1000
"""Cells that are written of a larger one."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of N images with known classes."""

    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """95 % interval of the accuracy (Wilson 1927): where it may lie on other images of the kind."""
    top5: float | None
    """Share with the true class among the five likeliest; None with five classes or fewer."""
    balanced_accuracy: float
    """Mean recall over the classes that occur."""
    loss: float
    """Mean cross-entropy in nats."""
    calibration_error: float
    """Expected calibration error: |how sure - how often right| over bins of equal width, weighed
    by their images (Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602), of the likeliest class."""
    brier: float
    """Mean squared distance from the truth over all classes, 0 to 2 (Brier 1950)."""
    answered: float | None
    """Share of the images that got a name; None where no answer was rejected."""
    answered_accuracy: float | None
    """Share of those that is right; None where there is none."""
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    """(C, C): rows are what an image is, columns what it was called."""
    unreadable: tuple[str, ...] = ()
    """Images that took no part, each with its reason."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no image is of: the scores say nothing of them."""
        return tuple(one.name for one in self.classes if not one.images)

    @property
    def is_large(self) -> bool:
        """Whether the confusion matrix is too large to be written as a whole."""
        return len(self.classes) > MOST_CLASSES

    def cells(self) -> list[tuple[int, int, int]]:
        """Return (class, predicted, images) for each cell that is not empty, row by row."""
        rows, columns = np.nonzero(self.confusion)
        images = self.confusion[rows, columns]
        return list(zip(rows.tolist(), columns.tolist(), images.tolist(), strict=True))

    def confusions(self) -> list[tuple[int, int, int]]:
        """Return (class, predicted, images) for the largest confusions, the largest first."""
        wrong = [cell for cell in self.cells() if cell[0] != cell[1]]
        return sorted(wrong, key=lambda cell: -cell[2])[:MOST_CONFUSIONS]

    def in_card(self) -> dict[str, Any]:
        """`plain` without the confusion matrix."""
        confusion = ("confusion", "largest_confusions")
        return {name: one for name, one in self.plain().items() if name not in confusion}

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "accuracy_95": [self.accuracy_low, self.accuracy_high],
            "top5": self.top5,
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "brier": self.brier,
            "answered": self.answered,
            "answered_accuracy": self.answered_accuracy,
            "classes": {
                one.name: {
                    "images": one.images,
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                }
                for one in self.classes
            },
            "confusion": None if self.is_large else self.confusion.tolist(),
            **(
                {"largest_confusions": [list(cell) for cell in self.confusions()]}
                if self.is_large
                else {}
            ),
            "unreadable": list(self.unreadable),
        }


BINS = 15
"""Of the calibration error."""

SMALLEST = 1e-300
"""Below this a probability is taken for this, so that it has a logarithm."""


def logs(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms (..., C): the logits, less one number for all classes."""
    found: NDArray[np.float64] = np.log(np.maximum(probabilities, SMALLEST))
    return found


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (..., C) of logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    soft: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return soft


def measure(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    names: Sequence[str],
    *,
    answered: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Scores of probabilities (N, C) against labels (N,), N at least 1.

    `answered` (N,) says which images got a name, where some are answered with "unsure"; all other
    scores are of all images.
    As scikit-learn has them, which tests hold them to; importing it takes a second, and this does
    not.
    """
    count = len(names)
    called = probabilities.argmax(axis=1)
    table = np.bincount(labels * count + called, minlength=count**2).reshape(count, count)
    right, support, given = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    # A class that is never called has no precision, one without images no recall: 0, as is usual.
    precision, recall = right / np.maximum(given, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + given, 1)
    low, high = wilson(int(right.sum()), len(labels))
    top5 = None
    if count > 5:
        above = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
        top5 = float((above < 5).mean())
    true_probability = probabilities[np.arange(len(labels)), labels]
    return Evaluation(
        images=len(labels),
        accuracy=float(right.sum() / len(labels)),
        accuracy_low=low,
        accuracy_high=high,
        top5=top5,
        balanced_accuracy=float(recall[support > 0].mean()),
        loss=float(-logs(true_probability).mean()),
        calibration_error=sum(
            abs(one.sure - one.right) * one.images for one in reliability(labels, probabilities)
        )
        / len(labels),
        brier=float((np.square(probabilities).sum(axis=1) - 2 * true_probability + 1).mean()),
        answered=None if answered is None else float(answered.mean()),
        answered_accuracy=None
        if answered is None or not answered.any()
        else float((called == labels)[answered].mean()),
        classes=tuple(
            ClassScore(
                name=name,
                images=int(support[i]),
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
            )
            for i, name in enumerate(names)
        ),
        confusion=table.astype(np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The images of which the head was about so sure: a point of a reliability diagram."""

    sure: float
    """Mean probability of the likeliest class."""
    right: float
    """Share of which the likeliest class is the true one."""
    images: int


def reliability(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], *, bins: int = BINS
) -> list[Bin]:
    """Probabilities (N, C) in bins of equal width that hold any, from unsure to sure."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        Bin(
            sure=float(sure[place == one].mean()),
            right=float(right[place == one].mean()),
            images=int(count),
        )
        for one, count in enumerate(np.bincount(place, minlength=bins))
        if count
    ]


NORMAL_95 = 1.959963984540054
"""The normal distribution has 95 % within so many standard deviations."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson 1927 (doi 10.1080/01621459.1927.10502953).

    scipy.stats has it too, and takes longer to import than a head on stored features to fit.
    """
    z = NORMAL_95
    share, odd = right / count, z * z / count
    middle = (share + odd / 2) / (1 + odd)
    width = z / (1 + odd) * math.sqrt(share * (1 - share) / count + odd / (4 * count))
    # Rounding must not take an end past the share itself.
    return min(share, max(0.0, middle - width)), max(share, min(1.0, middle + width))
