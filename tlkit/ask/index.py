"""Index: the nearest of N vectors by cosine, exactly, in a pass over half as much memory.

In: a bank. Out: an `Index`, which can be asked as often as one likes.
The vectors are held at length 1 in bfloat16. How far rounding can move a cosine is known: by no
more than the two vectors were moved, and the product. So whatever could be among the nearest
follows from one product of matrices, and is computed again from the bank: the answer is that of a
search in single precision, not an approximation. benchmarks/similar.py measures it.
Next door: similar.py (which photos, and what is said of them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlkit.train.bank import Bank

SLACK = 2.0**-8
"""How far the product moves a cosine: rounding to bfloat16 by half of it, single precision in the
sum of up to 32,000 terms by less than the other half."""

AT_ONCE = 1 << 16
"""Vectors that are compared at once."""

IN_BLOCK = 1 << 22
"""Numbers that are read from the bank at once."""

ASKED = 64
"""Vectors that are searched for at once."""


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest n of one vector, the nearest first."""

    places: NDArray[np.int64]
    """(n,)"""
    similarities: NDArray[np.float32]
    """(n,) cosines."""


class Index:
    """N vectors of D numbers, in 2 N D bytes."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        width = int(np.prod(bank.shape))
        self.vectors = torch.empty(len(bank.places), width, dtype=torch.bfloat16)
        self._moved = 0.0
        begin = 0
        for block in bank.blocks():
            rows = _unit(block)
            half = rows.bfloat16()
            self.vectors[begin : begin + len(rows)] = half
            self._moved = max(self._moved, _moved(rows, half))
            begin += len(rows)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, asked: Tensor, count: int) -> list[Nearest]:
        """(Q, ...) vectors -> for each the `count` nearest, or all where there are fewer."""
        found: list[Nearest] = []
        for some in _unit(asked).split(ASKED):
            found += self._nearest(some, min(count, len(self)))
        return found

    def _nearest(self, asked: Tensor, count: int) -> Iterator[Nearest]:
        """Of (Q, D) unit vectors."""
        half = asked.bfloat16()
        slack = SLACK + self._moved + _moved(asked, half)
        rough = torch.empty(len(self), len(asked))
        for begin in range(0, len(self), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            rough[part] = (self.vectors[part] @ half.T).float()
        for number, one in enumerate(asked):
            column = rough[:, number]
            least = column.topk(count).values[-1] - 2 * slack
            places = torch.nonzero(column >= least).ravel().numpy()
            exact = self._exact(one, places)
            order = torch.argsort(exact, descending=True, stable=True)[:count].numpy()
            yield Nearest(places=places[order], similarities=exact.numpy()[order])

    def _exact(self, one: Tensor, places: NDArray[np.int64]) -> Tensor:
        """(n,) cosines in single precision."""
        step = max(1, IN_BLOCK // len(one))
        parts = np.split(places, range(step, len(places), step))
        return torch.cat([_unit(self._bank.at(part, 0)) @ one for part in parts])

    def random_pairs(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        """(count,) cosines between vectors drawn at random, sorted; none where there is only one.

        Of the vectors as they are held, in bfloat16.
        """
        if len(self) < 2:
            return np.zeros(0, np.float32)
        random = np.random.default_rng(seed)
        first = random.integers(len(self), size=count)
        other = (first + random.integers(1, len(self), size=count)) % len(self)
        step = max(1, IN_BLOCK // self.vectors.shape[1])
        found = [
            functional.cosine_similarity(
                self.vectors[first[part]].float(), self.vectors[other[part]].float()
            )
            for part in (slice(begin, begin + step) for begin in range(0, count, step))
        ]
        return np.sort(torch.cat(found).numpy())


def _unit(rows: Tensor) -> Tensor:
    """(n, ...) -> (n, D) of length 1."""
    return functional.normalize(rows.flatten(1), dim=1)


def _moved(rows: Tensor, half: Tensor) -> float:
    """How far rounding has moved one of (n, D) vectors at most: no cosine with it by more."""
    return float((rows - half.float()).norm(dim=1).max())
