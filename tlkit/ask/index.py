"""Index: the nearest of N vectors by cosine, exactly, in a pass over half as much memory.

In: a bank. Out: an `Index`, which can be asked as often as one likes.
The vectors are held at length 1 in bfloat16. Rounding moves a cosine by no more than `SLACK`: so
whatever could be among the nearest is known from one product, and is computed again from the bank.
The answer is that of a search in single precision, not an approximation.
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

ROUNDING = 2.0**-9
"""The largest relative error of a number in bfloat16."""

SLACK = 4 * ROUNDING
"""Of a cosine: both factors and the product are rounded, and sums by much less than one more."""

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
        begin = 0
        for block in bank.blocks():
            rows = _unit(block)
            self.vectors[begin : begin + len(rows)] = rows.bfloat16()
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
        rough = torch.empty(len(self), len(asked))
        for begin in range(0, len(self), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            rough[part] = (self.vectors[part] @ half.T).float()
        for number, one in enumerate(asked):
            column = rough[:, number]
            least = column.topk(count).values[-1] - 2 * SLACK
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

        As they are held: rounded by no more than `SLACK`.
        """
        if len(self) < 2:
            return np.zeros(0, np.float32)
        random = np.random.default_rng(seed)
        first = random.integers(len(self), size=count)
        other = (first + random.integers(1, len(self), size=count)) % len(self)
        step = max(1, IN_BLOCK // self.vectors.shape[1])
        found = [
            (self.vectors[first[part]].float() * self.vectors[other[part]].float()).sum(dim=1)
            for part in (slice(begin, begin + step) for begin in range(0, count, step))
        ]
        return np.sort(torch.cat(found).numpy())


def _unit(rows: Tensor) -> Tensor:
    """(n, ...) -> (n, D) of length 1."""
    return functional.normalize(rows.flatten(1), dim=1)
