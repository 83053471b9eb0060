"""Judge: the loss that is trained on, and how good the model is on the validation images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tlkit.data.batches import even_parts, plain_views
from tlkit.data.folder import Catalog
from tlkit.data.pixels import Decoded
from tlkit.model.assemble import Cut
from tlkit.model.device import Compute
from tlkit.ranks import here
from tlkit.train.bank import Bank


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
    """Cross-entropy: (B, C) and (B,) or (B, C) of shares -> scalar, the (weighted) batch mean.

    The same as the negative log-likelihood (NLL) of the log-softmax.
    """
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


def probabilities(logits: Tensor) -> NDArray[np.float64]:
    """(N, C) logits -> (N, C), in double precision."""
    rows: NDArray[np.float64] = logits.double().softmax(dim=1).numpy()
    return rows


def standing(score: Verdict, monitor: str) -> tuple[float, ...]:
    """What two scores are compared by: the lower is the better one. No number is the worst."""
    loss = score.loss if math.isfinite(score.loss) else math.inf
    if monitor == "loss":
        return (loss,)
    # Shares of few images are often equal; then the loss tells.
    return (-(score.accuracy if monitor == "accuracy" else score.balanced_accuracy), loss)


def best_in_words(
    score: Verdict, monitor: str, *, part: str = "validation", prior: float | None = None
) -> str:
    """Say by which figure a score is the best, as `standing` ranks them."""
    if prior is None:
        loss = f"the lowest {part} loss ({score.loss:.4f})"
        ties = "loss"
    else:
        loss = f"the lowest {part} loss + prior ({score.loss + prior:.4f})"
        ties = "loss + prior"
    if monitor == "loss":
        return loss
    balanced = monitor == "balanced"
    name, share = (
        ("balanced accuracy", score.balanced_accuracy) if balanced else ("accuracy", score.accuracy)
    )
    return f"the highest {part} {name} ({100 * share:.1f} %); ties are broken by {ties}"


def bank_logits(cut: Cut, compute: Compute, bank: Bank) -> Tensor:
    """(N, C) logits of the trained part on a bank's first views."""
    cut.trained.eval()  # the frozen one is always
    return bank_outputs(cut.trained, compute, bank)


def bank_outputs(module: nn.Module, compute: Compute, bank: Bank, *, batch: int = 256) -> Tensor:
    """(N, ...) of a module in eval mode on a bank's first views."""
    every = np.arange(len(bank.labels))
    return torch.cat(
        [
            compute.infer(module, bank.at(part, 0)).cpu()
            for part in np.split(every, range(batch, len(every), batch))
        ]
    )


def image_logits(
    cut: Cut, compute: Compute, catalog: Catalog, pixels: Decoded, *, batch: int, workers: int
) -> Tensor:
    """(N, C) logits of the whole model on the plain views of a catalog's images.

    Each process computes its share of them, and gets those of all.
    """
    spec = cut.model.spec
    cut.training(False)
    share = here().part(len(catalog))
    paths = catalog.paths[share]
    views = plain_views(
        spec, paths, sizes=even_parts(len(paths), batch),
        source=lambda position: pixels(share.start + position), workers=workers,
        do="put them back: they were readable when the fit began",
    )  # fmt: skip
    own = [compute.infer(cut.model, one).cpu() for one in views]
    return torch.cat([one for those in here().gather(own) for one in those])
