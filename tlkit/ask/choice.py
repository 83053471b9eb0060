"""Choice: photos that teach a head the most.

In: probabilities (N, C), vectors in front of the head; of labelled photos too, where they are at
hand. Out: places of photos, most wanted first.
The margin between the two likeliest classes says how unsure a head is (Scheffer et al. 2001). Alone
it names one kind of photo again and again, so those with the smallest margins, a few times as many
as are wanted, are candidates only.
Beside labelled photos, one after another is taken that lowers the variance of the head's answers to
all photos the most (Yu et al. 2006, Active Learning via Transductive Experimental Design; for
logistic regression Schein and Ungar 2007, doi 10.1007/s10994-007-5019-5).
Without them, the candidates are parted into as many clusters as photos are wanted by k-means, in
which a photo weighs as much as it is uncertain, and of each the photo nearest to the centre is
taken (Zhdanov 2019, arXiv 1901.05954). benchmarks/suggest.py holds both against random draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TIMES = 5
"""Candidates for each photo that is wanted."""

MOST = 4096
"""Candidates in all, unless more photos are wanted: time and memory grow with their square."""

AIMS = 1500
"""Photos that stand for all, where the variance is looked at."""

LABELLED = 3000
"""Labelled photos that are reckoned with at most; of the others the head is sure, so that they
hardly tell it anything."""

ROUNDS = 20
"""Of k-means at most; what comes after moves a centre by little."""

LEAST = 1e-6
"""Weight of a photo of which the head is entirely sure: a cluster may have no other."""

_CANDIDATES = (
    f"The {TIMES} times as many photos with the smallest margins between the two likeliest classes "
    "were the candidates. "
)

METHOD = _CANDIDATES + (
    "They were parted by k-means into as many clusters as photos are wanted, by the vectors in "
    "front of the head, less their mean and scaled to length 1, each weighted with its uncertainty "
    "(1 less the margin); the one nearest to the centre of each was taken."
)

METHOD_BESIDE = _CANDIDATES + (
    "Of them one after another was taken that lowers the variance of the head's answers to all "
    "photos the most, given what the labelled photos and those before it tell (experimental design "
    "for logistic regression, on the vectors in front of the head)."
)

Rows = Callable[[NDArray[np.int64]], Tensor]
"""Places (n,) -> vectors (n, ...)."""


@dataclass(frozen=True)
class Photos:
    """What a head makes of N photos."""

    told: NDArray[np.floating]
    """(N, C) probabilities."""
    rows: Rows
    """Their vectors."""


def margins(told: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N, C) probabilities -> (N,), how much likelier the likeliest class is than the next."""
    top = np.partition(told, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def candidates_of(margin: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Places of the least certain photos, from which `count` are chosen; the least certain first.

    Never more than a few times `count`, however many photos there are.
    """
    most = max(count, min(TIMES * count, MOST))
    return np.argsort(margin, kind="stable")[:most].astype(np.int64)


def chosen(photos: Photos, count: int, labelled: Photos | None = None) -> NDArray[np.int64]:
    """`count` places of N photos, the most wanted first, given those that have labels.

    Vectors are asked for of some photos alone, however many there are: the candidates, those that
    stand for all, the labelled ones that matter. The same question has the same answer.
    """
    margin = margins(photos.told)
    places = candidates_of(margin, count)
    if len(places) == count:
        return places
    # A file's order is its folder's, and a store reads what lies side by side at once.
    places = np.sort(places)
    if labelled is not None:
        return places[_informative(photos, places, labelled, count)]
    vectors = photos.rows(places).flatten(1).float()
    vectors = functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    taken = places[_typical(vectors.numpy(), 1 - margin[places], count)]
    return np.asarray(taken[np.argsort(margin[taken], kind="stable")])


@dataclass(frozen=True)
class _Points:
    """Photos as the variance of the head's answers sees them."""

    vectors: NDArray[np.float64]
    """(n, D)"""
    doubt: NDArray[np.float64]
    """(n, C) the standard deviation of each class's indicator: a sure answer has none."""

    def likeness(self, other: _Points) -> NDArray[np.float64]:
        """(n, m): the covariance of two answers before anything is learnt."""
        doubt = self.doubt @ other.doubt.T
        return np.asarray((self.vectors @ other.vectors.T) * doubt)

    def take(self, places: NDArray[np.int64]) -> _Points:
        return _Points(self.vectors[places], self.doubt[places])


def _doubt(told: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.clip(told * (1 - told), 0, None)), np.float64)


def _points(
    photos: Photos, places: NDArray[np.int64], centre: NDArray[np.float64], scale: float
) -> _Points:
    vectors = photos.rows(places).flatten(1).double().numpy()
    return _Points((vectors - centre) / scale, _doubt(photos.told[places]))


def _informative(
    photos: Photos, places: NDArray[np.int64], labelled: Photos, count: int
) -> NDArray[np.int64]:
    """`count` of the candidates at `places`: where among these they are.

    The posterior of a Gaussian process with noise 1, held as a Cholesky factor that gains a row
    with each choice. Takes O(count n (count + n)) time for n candidates.
    """
    from scipy.linalg import cholesky, solve_triangular

    every = np.random.default_rng(0).permutation(len(photos.told))[:AIMS]
    aims = photos.rows(np.sort(every)).flatten(1).double().numpy()
    centre = aims.mean(axis=0)
    scale = max(float(np.sqrt(((aims - centre) ** 2).sum(axis=1).mean())), LEAST)
    at_aims = _points(photos, np.sort(every), centre, scale)
    these = _points(photos, places, centre, scale)
    unsure = np.argsort(-(_doubt(labelled.told) ** 2).sum(axis=1), kind="stable")[:LABELLED]
    before = _points(labelled, np.sort(unsure), centre, scale)

    lower = cholesky(before.likeness(before) + np.eye(len(unsure)), lower=True)
    factor = np.empty((len(unsure) + count, len(places)))
    factor[: len(unsure)] = solve_triangular(lower, before.likeness(these), lower=True)
    known = factor[: len(unsure)]
    shared = these.likeness(at_aims)
    shared -= known.T @ solve_triangular(lower, before.likeness(at_aims), lower=True)
    own = (these.vectors**2).sum(axis=1) * (these.doubt**2).sum(axis=1) - (known**2).sum(axis=0)

    taken = np.empty(count, np.int64)
    free = np.ones(len(places), bool)
    for number in range(count):
        gain = np.where(free, (shared**2).sum(axis=1) / (1 + own), -np.inf)
        best = taken[number] = int(gain.argmax())
        free[best] = False
        rows = len(unsure) + number
        column = these.likeness(these.take(taken[number : number + 1]))[:, 0]
        column -= factor[:rows].T @ factor[:rows, best]
        column /= np.sqrt(1 + own[best])
        factor[rows] = column
        shared -= np.outer(column, shared[best] / np.sqrt(1 + own[best]))
        own -= column**2
    return taken


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
