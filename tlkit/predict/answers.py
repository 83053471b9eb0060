"""Answers: from a head's logits to its probabilities, the same way in every command.

In: a `Head`, logits of images. Out: calibrated probabilities, all of them finite numbers, or an
`AnswerError` that names the head.
Next door: model/device.py (`compute_for_answers`: in which arithmetic the logits are computed),
model/engine.py (`PROMISE`: by how much a probability may differ between commands and engines).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tlkit.artifact import Head
from tlkit.model.finite import check_scores


def probabilities_of(head: Head, logits: Tensor, images: Sequence[str | Path] = ()) -> Tensor:
    """Turn logits (N, C) into calibrated probabilities (N, C) in double precision.

    Raises `AnswerError` where a logit is not finite; `images` says for which image, one for each
    row.
    """
    check_scores(logits, head.path, images)
    return (logits.double() / head.card.calibration.temperature).softmax(dim=1)
