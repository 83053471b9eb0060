"""Finite: what a network or a head answers is a number, or an error that names it.

In: numbers of N images, and what gave them. Out: nothing, or an `AnswerError`. Whatever a network,
a head, an engine or another runtime computes passes here before anybody sees it: no comparison with
NaN is ever true, so that thresholds, orders and maxima of such numbers say something, and it is
false.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.errors import AnswerError, listing

Numbers = Tensor | NDArray[np.floating]


def not_finite(numbers: Numbers) -> NDArray[np.int64]:
    """Return the positions among N rows (N, ...) of those with a NaN or an infinity."""
    rows = numbers if isinstance(numbers, Tensor) else torch.from_numpy(np.asarray(numbers))
    if torch.isfinite(rows).all():  # nearly always: rows are not looked at one by one
        return np.zeros(0, np.int64)
    bad = ~torch.isfinite(rows.reshape(len(rows), -1)).all(dim=1)
    positions: NDArray[np.int64] = bad.nonzero().flatten().cpu().numpy()
    return positions


def check_finite(numbers: Numbers, *, of: str, do: str, images: Sequence[str | Path] = ()) -> None:
    """Raise `AnswerError` unless every number of N rows (N, ...) is finite.

    `of` says whose numbers they are, `images` what each row is for, where that is known.
    """
    bad = not_finite(numbers)
    if not len(bad):
        return
    found = "NaN or infinite numbers"
    if len(images):
        found += " for\n" + listing([str(images[one]) for one in bad.tolist()], most=8)
    raise AnswerError(
        f"{of} gives numbers that are not finite", found=found, expected="finite numbers", do=do
    )


def check_scores(scores: Numbers, head: Path | str, images: Sequence[str | Path] = ()) -> None:
    """Raise `AnswerError`, which names the head, unless all its scores (N, ...) are finite."""
    named = str(head) not in ("", ".")
    check_finite(
        scores,
        of=f"the head {head}" if named else "the head",
        do="do not use this head: fit it again, with --precision fp32 if it was fitted in bf16",
        images=images,
    )
