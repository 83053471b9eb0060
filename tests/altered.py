"""Head files whose tensors were changed, with a card that vouches for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tlkit import artifact
from tlkit.weights import digest


def altered(file: Path, out: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """Write what `change` makes of the tensors of a head file."""
    head = artifact.load(file)
    tensors = artifact.tensors_of(head.cut)
    change(tensors)
    card = replace(head.card, tensors_sha256=digest(tensors.items()))
    artifact.save(out, tensors, card)
    return out
