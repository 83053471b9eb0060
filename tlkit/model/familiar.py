"""Familiar: how much an image is like those that a head has learnt from.

In: the vectors in front of a head. Out: prototypes of what was learnt from, and how near to one of
them a vector is. A name for an image of something else is wrong however sure the head is; that it
is of something else shows here.
Cosines to the nearest neighbours tell strangers best (Sun et al. 2022, arXiv 2204.06507), but need
every vector; a few means of each class, found by k-means, do nearly as well.
Not here: what is done about it (predict/reject.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST_NUMBERS = 1 << 14
"""In all prototypes, where one of each class does not have more: 32 KiB of a head file."""

MOST_EACH = 8
"""Prototypes of a class."""

SAMPLED = 1 << 22
"""Numbers of a class's vectors that are looked at: 16 MiB."""

TENSOR = "familiar.prototypes"
"""Its name in a head file."""


class Familiar(nn.Module):
    """(B, D) -> (B,): the cosine to the nearest of M prototypes."""

    prototypes: Tensor
    """(M, D) fp16, of length 1."""

    def __init__(self, prototypes: Tensor) -> None:
        super().__init__()
        self.register_buffer("prototypes", prototypes.half())

    def forward(self, vectors: Tensor) -> Tensor:
        cosines = nn.functional.normalize(vectors.float(), dim=1) @ self.prototypes.float().T
        return cosines.amax(dim=1)


class Told(nn.Module):
    """(B, D) -> (B, C + 1): the head's logits, and how familiar the vector is."""

    def __init__(self, head: nn.Module, familiar: Familiar) -> None:
        super().__init__()
        self.head = head
        self.familiar = familiar

    def forward(self, vectors: Tensor) -> Tensor:
        logits = self.head(vectors)
        return torch.cat([logits, self.familiar(vectors)[:, None].to(logits.dtype)], dim=1)


def most_prototypes(classes: int, width: int) -> int:
    """Of each of C classes, for vectors of D numbers."""
    return min(MOST_EACH, max(1, MOST_NUMBERS // (classes * width)))


def familiar_with(
    rows: Callable[[NDArray[np.int64]], Tensor], labels: NDArray[np.int64], *, seed: int
) -> Familiar:
    """What tells the vectors of N images with these labels from those of others.

    `rows` gives the vectors (n, D) at n of their places. Vectors of a class that are not all looked
    at are taken evenly.
    """
    from scipy.cluster.vq import kmeans2

    classes = np.unique(labels)
    width = rows(np.zeros(1, np.int64)).shape[1]
    each = most_prototypes(len(classes), width)
    found = []
    for label in classes:
        places = np.flatnonzero(labels == label)
        some = np.linspace(0, len(places) - 1, min(len(places), max(each, SAMPLED // width)))
        vectors = nn.functional.normalize(rows(places[some.round().astype(np.int64)]), dim=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of clusters that stay empty: fewer will do
            means, _ = kmeans2(
                vectors.numpy(), min(each, len(vectors)), iter=20, minit="++", seed=seed
            )
        found.append(torch.from_numpy(means))
    prototypes = torch.cat(found)
    prototypes = prototypes[prototypes.norm(dim=1) > 0]
    return Familiar(nn.functional.normalize(prototypes, dim=1))
