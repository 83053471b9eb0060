"""Events: what happens during a fit, as records that the caller prints or collects."""

from __future__ import annotations

from dataclasses import dataclass

from tlkit.steps import Tick

__all__ = ["Epoch", "Event", "FoldScore", "Note", "Tick"]


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something decided or noticed that the user should know."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images, and what it reached on the validation images."""

    number: int
    """From 1; 0 is what fine-tuning began with, after a probe."""
    rate: float
    """Learning rate of the head at its end; for lbfgs, the penalty on the squared weights."""
    train_loss: float
    """What was minimised, without the penalty: with smoothing and class weights, if there are."""
    val_loss: float
    """Mean cross-entropy in nats, without smoothing and class weights."""
    val_accuracy: float
    val_balanced_accuracy: float
    wall_s: float
    prior: float | None = None
    """What is added to `val_loss` before losses are compared: the prior on the penalty, where few
    images choose it (train/cross.py). None where losses are compared as they are."""

    @property
    def selection_loss(self) -> float:
        """What losses are compared by: the epoch with the lowest is kept."""
        return self.val_loss + (self.prior or 0.0)


@dataclass(frozen=True, kw_only=True)
class FoldScore:
    """A fold is trained: what its head reached on the images that it did not learn from."""

    number: int
    """From 1."""
    of: int
    images: int
    accuracy: float
    balanced_accuracy: float
    loss: float
    """Mean cross-entropy in nats."""
    kept: Epoch


Event = Note | Tick | Epoch | FoldScore
