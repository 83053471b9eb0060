"""Choice: photos that a head is unsure of, and that are unlike each other.

In: probabilities (N, C), vectors in front of the head. Out: places of photos, most wanted first.
The margin between the two likeliest classes says how unsure a head is (Scheffer et al. 2001).
Alone it names one kind of photo again and again. So from the photos with the smallest margins, a
few times as many as are wanted, one after another is taken whose uncertainty times its distance to
all taken before is largest: the farthest-first traversal of a core-set (Sener and Savarese 2018,
arXiv 1708.00489), weighted. benchmarks/suggest.py holds it against random draws.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TIMES = 5
"""Candidates for each photo that is wanted."""

METHOD = (
    f"The {TIMES} times as many photos with the smallest margins between the two likeliest classes "
    "were the candidates; of these, one after another was taken whose uncertainty (1 less the "
    "margin) times its distance to all taken before (1 less the cosine of the vectors in front of "
    "the head) is largest."
)

Rows = Callable[[NDArray[np.int64]], Tensor]
"""Places (n,) -> vectors (n, ...)."""


def margins(told: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, C) probabilities -> (N,), how much likelier the likeliest class is than the next."""
    top = np.partition(told, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def candidates_of(margin: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Places of the least certain photos, from which `count` are chosen; the least certain first.

    Never more than a few times `count`, however many photos there are.
    """
    return np.argsort(margin, kind="stable")[: TIMES * count].astype(np.int64)


def chosen(told: NDArray[np.floating], rows: Rows, count: int) -> NDArray[np.int64]:
    """`count` places of N photos by their probabilities (N, C), the most wanted first.

    Vectors are asked for of the candidates alone. Takes O(count^2 D) time.
    """
    margin = margins(told)
    places = candidates_of(margin, count)
    unsure = torch.from_numpy(1 - margin[places]).float()
    # A file's order is its folder's, and a store reads what lies side by side at once.
    order = np.argsort(places)
    vectors = rows(places[order]).flatten(1)[torch.from_numpy(np.argsort(order))]
    vectors = functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    far = torch.full((len(places),), torch.inf)
    taken: list[int] = []
    worth = unsure.clone()
    for _ in range(count):
        best = int(worth.argmax())
        taken.append(best)
        far = torch.minimum(far, 1 - vectors @ vectors[best])
        worth = unsure * far
        worth[taken] = -torch.inf
    return places[taken]
