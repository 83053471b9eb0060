"""Metrics: how good predictions are. Arrays in, numbers out; scikit-learn does the counting.

Not here: making predictions (predict/), showing the numbers (report/, cli/).
"""

from __future__ import annotations

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
    classes: tuple[ClassScore, ...]
    confusion: NDArray[np.int64]
    """(C, C): rows are what an image is, columns what it was called."""
    unreadable: tuple[str, ...] = ()
    """Images that took no part, each with its reason."""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "accuracy_95": [self.accuracy_low, self.accuracy_high],
            "top5": self.top5,
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "classes": {
                one.name: {
                    "images": one.images,
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                }
                for one in self.classes
            },
            "confusion": self.confusion.tolist(),
            "unreadable": list(self.unreadable),
        }


def measure(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], names: Sequence[str]
) -> Evaluation:
    """Scores of probabilities (N, C) against labels (N,), N at least 1."""
    from scipy.stats import binomtest
    from sklearn import metrics

    columns = list(range(len(names)))
    called = probabilities.argmax(axis=1)
    right = int((called == labels).sum())
    interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, called, labels=columns, zero_division=0.0
    )
    top5 = None
    if len(names) > 5:
        top5 = float(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=columns))
    true_probability = probabilities[np.arange(len(labels)), labels]
    return Evaluation(
        images=len(labels),
        accuracy=right / len(labels),
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        top5=top5,
        balanced_accuracy=float(recall[support > 0].mean()),
        loss=float(-np.log(np.maximum(true_probability, 1e-300)).mean()),
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
        confusion=metrics.confusion_matrix(labels, called, labels=columns).astype(np.int64),
    )
