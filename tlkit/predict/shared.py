"""Shared: heads on one and the same frozen part, which runs once for all of them.

In: loaded heads. Out: which of them share, and a `Stack` that runs several as one.
The heads of a cross-validation are such heads: K heads cost one backbone.
Not here: images (run.py), weighing the heads' answers (ensemble.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tlkit.artifact import Head
from tlkit.model.device import Compute
from tlkit.model.familiar import Told


def groups(heads: Sequence[Head]) -> list[list[int]]:
    """Positions of heads that share their frozen part; a head that shares none stands alone."""
    found: dict[object, list[int]] = {}
    for position, head in enumerate(heads):
        found.setdefault(_frozen(head) or position, []).append(position)
    return list(found.values())


def _frozen(head: Head) -> tuple[object, ...] | None:
    """What two heads must have alike to share; None where nothing worth it is frozen."""
    card = head.card
    if head.cut is None or not head.cut.has_bank:
        return None
    plan = tuple(sorted((name, one) for name, one in card.plan.items() if name != "seed"))
    network = (card.distribution, card.distribution_version, card.backbone)
    return (*network, card.weights.frozen_sha256, card.input, card.precision, plan)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """H models as their parts in the order in which data passes, the first of them shared."""

    parts: tuple[tuple[nn.Module, ...], ...]
    border: int
    """Parts before this one are frozen, and the first model's for all; 0 where none is."""
    neck: int
    """The place of the neck: maps before it, vectors behind it."""

    @property
    def end(self) -> int:
        """The number of parts."""
        return len(self.parts[0])

    @property
    def common(self) -> int:
        """The parts before this one run once for all heads, on an engine."""
        return self.border or self.end

    def place(self, compute: Compute) -> None:
        """Move what runs to the device, in eval mode."""
        for number, parts in enumerate(self.parts):
            for part in parts if number == 0 else parts[self.border :]:
                compute.place(part.eval())

    def run(self, compute: Compute, found: list[Tensor], start: int, stop: int) -> list[Tensor]:
        """Parts from `start` to before `stop`: one tensor as long as all is shared, else H."""
        middle = min(max(start, self.border), stop)
        if start < middle:
            found = [compute.infer(nn.Sequential(*self.parts[0][start:middle]), found[0])]
        if middle < stop:
            each = found if len(found) == len(self.parts) else found * len(self.parts)
            found = [
                compute.infer(nn.Sequential(*parts[middle:stop]), one)
                for parts, one in zip(self.parts, each, strict=True)
            ]
        return found


def _parts(head: Head) -> Iterator[nn.Module]:
    """A model's modules; its head also tells how familiar an image is, where it knows."""
    familiar = head.model.familiar
    for name, part in head.model.parts():
        yield Told(part, familiar) if name == "head" and familiar is not None else part


def stacked(heads: Sequence[Head]) -> Stack:
    """Heads of one of the `groups`, at least one, as one stack."""
    first = heads[0]
    frozen = first.cut is not None and first.cut.has_bank
    shared = len(first.cut.frozen) if first.cut is not None and frozen else 0
    return Stack(
        parts=tuple(tuple(_parts(head)) for head in heads),
        border=shared,
        neck=[name for name, _ in first.model.parts()].index("neck"),
    )
