"""Judge: the loss that is trained on, and how good the model is on the validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Scores on the validation images."""

    loss: float
    """Mean cross-entropy in nats, without smoothing and class weights."""
    accuracy: float
    balanced_accuracy: float
    """Mean recall over the classes that occur."""


Judge = Callable[[], Verdict]


def loss_of(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """Cross-entropy: (B, C), (B,) -> scalar, the (weighted) mean over the batch."""
    return functional.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing)


def balanced_weights(counts: NDArray[np.int64]) -> Tensor:
    """(C,) weights that make every class count alike: N / (C * its images)."""
    present = np.maximum(counts, 1)
    return torch.from_numpy((counts.sum() / (len(counts) * present)).astype(np.float32))


def verdict(logits: Tensor, labels: Tensor) -> Verdict:
    """Scores of logits (N, C) against labels (N,)."""
    right = logits.argmax(dim=1) == labels
    recalls = [right[labels == label].float().mean() for label in labels.unique()]
    return Verdict(
        loss=float(functional.cross_entropy(logits, labels)),
        accuracy=float(right.float().mean()),
        balanced_accuracy=float(torch.stack(recalls).mean()),
    )
