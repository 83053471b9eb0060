"""Banks for tests, made of numbers."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlkit.data.folder import Catalog
from tlkit.data.names import Names
from tlkit.train.bank import Bank


def bank_of(values: Tensor, labels: Tensor) -> Bank:
    """(N, V, ...) and (N,) in memory."""
    count, views = values.shape[:2]
    flat = values.flatten(0, 1)
    return Bank(
        rows=lambda places: flat[places],
        places=np.arange(count * views).reshape(count, views),
        shape=tuple(values.shape[2:]),
        labels=labels,
        catalog=Catalog(
            root=Path(),
            classes=tuple(str(one) for one in range(int(labels.max()) + 1)),
            files=Names.of(f"{number}.png" for number in range(count)),
            labels=labels.numpy(),
        ),
        bad=(),
    )


def every(bank: Bank) -> Tensor:
    """(N * V, ...)"""
    return torch.cat(list(bank.blocks()))
