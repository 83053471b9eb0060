"""Choice: photos that a head is unsure of, and that are unlike each other.

In: probabilities (N, C), vectors in front of the head. Out: places of photos, most wanted first.
The margin between the two likeliest classes says how unsure a head is (Scheffer et al. 2001).
Alone it names one kind of photo again and again. So the photos with the smallest margins, a few
times as many as are wanted, are parted into as many clusters by k-means, in which a photo weighs as
much as it is uncertain, and of each the photo nearest to the centre is taken (Zhdanov 2019, arXiv
1901.05954). benchmarks/suggest.py holds it against random draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TIMES = 3
"""Candidates for each photo that is wanted."""

ROUNDS = 20
"""Of k-means at most; what comes after moves a centre by little."""

LEAST = 1e-6
"""Weight of a photo of which the head is entirely sure: a cluster may have no other."""

METHOD = (
    f"The {TIMES} times as many photos with the smallest margins between the two likeliest classes "
    "were the candidates. They were parted by k-means into as many clusters as photos are wanted, "
    "by the vectors in front of the head, less their mean and scaled to length 1, each weighted "
    "with its uncertainty (1 less the margin); the one nearest to the centre of each was taken."
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
    """`count` places of N photos by their probabilities (N, C), the least certain first.

    Vectors are asked for of the candidates alone. Takes O(count^2 D) time. The same question has
    the same answer.
    """
    margin = margins(told)
    # A file's order is its folder's, and a store reads what lies side by side at once.
    places = np.sort(candidates_of(margin, count))
    vectors = rows(places).flatten(1).float()
    vectors = functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    taken = places[_typical(vectors.numpy(), 1 - margin[places], count)]
    return np.asarray(taken[np.argsort(margin[taken], kind="stable")])


def _typical(
    vectors: NDArray[np.float32], unsure: NDArray[np.floating], count: int
) -> NDArray[np.int64]:
    """`count` of (n, D) vectors, each nearest to the centre of a cluster of its own."""
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    weight = np.maximum(unsure, LEAST)
    begin, _ = kmeans_plusplus(
        vectors, count, sample_weight=weight, random_state=0, n_local_trials=1
    )
    with warnings.catch_warnings():
        # Of photos that are the same there are fewer clusters: any of them will do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        parted = KMeans(count, init=begin, n_init=1, max_iter=ROUNDS).fit(vectors, None, weight)
    far = parted.transform(vectors)
    taken = np.empty(count, np.int64)
    for cluster in range(count):
        taken[cluster] = far[:, cluster].argmin()
        far[taken[cluster]] = np.inf
    return taken
