"""Cross: images judged by heads that did not learn from them, each image by one head.

In: a cut whose head is solved, banks. Out: the probabilities of these images, for one penalty,
which tell how sure the head may be; or for all of them, which choose the penalty where images are
so few that a part held out would say little.
Next door: probe.py (solving), folds.py (a cross-validation whose heads are kept).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.model.assemble import Cut
from tlkit.model.device import Compute
from tlkit.model.familiar import familiar_with
from tlkit.options import FitOptions
from tlkit.ranks import here
from tlkit.train.bank import Bank
from tlkit.train.events import Epoch, Tick
from tlkit.train.judge import (
    Judge,
    Verdict,
    balanced_weights,
    bank_logits,
    probabilities,
    standing,
    verdict,
)
from tlkit.train.probe import penalties, resolve, solve

PARTS = 5
"""Of the images, each judged by a head that learnt from the others."""

FEW = 512
"""Images up to which nothing is held out."""

USUAL = 0.075
"""The penalty that few images are believed to want, before any of them was judged. The head's
`Scale` makes it one for all backbones."""

SPREAD = 0.5
"""Standard deviation of that belief, in powers of ten: a few images that are all right would have
next to no penalty."""


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What a cross-validation of penalties has come to."""

    history: tuple[Epoch, ...]
    """Its losses on training images are those of a head on all of them."""
    best: Epoch
    index: NDArray[np.int64]
    """(M,) places of the images that were judged: all but the only ones of their class."""
    probabilities: NDArray[np.float64]
    """(M, C) for the best penalty."""


def cross(
    options: FitOptions, cut: Cut, compute: Compute, learn: Bank, plain: Bank
) -> Generator[Tick | Epoch, None, Crossed]:
    """Choose the penalty by heads that are solved without a part of the images, then solve on all.

    `plain` holds the plain view of the images in `learn`. What is least is the loss of all judged
    images together, less the logarithm of what was believed of the penalty before (a maximum a
    posteriori); so one image decides little, and none leaves it at `USUAL`. The cut has the
    solution afterwards.
    """
    part = parts_of(plain.labels.numpy(), seed=options.seed)
    logits = torch.zeros(options.epochs, len(part), len(plain.catalog.classes))
    for number in range(PARTS):
        yield Tick(what="cross-validation", done=number, total=PARTS)
        held = np.flatnonzero(part == number)
        if len(held):
            others = learn.take(np.flatnonzero(part != number), views=learn.views)
            judged = plain.take(held, views=1)
            for place, found in enumerate(_path(options, cut, compute, others, judged)):
                logits[place, held] = found
    yield Tick(what="cross-validation", done=PARTS, total=PARTS)
    index = np.flatnonzero(part >= 0)
    logits, labels = here().agree(logits[:, index]), plain.labels[index]
    verdicts = [verdict(one, labels) if len(index) else UNKNOWN for one in logits]
    place = chosen(verdicts, images=len(index), monitor=options.monitor)
    added = priors(len(verdicts), images=len(index))
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    scores = iter(verdicts)
    for record in _solved(options, cut, compute, learn, lambda: next(scores)):
        if len(history) == place:
            best = {name: one.detach().clone() for name, one in cut.trained_tensors().items()}
        history.append(replace(record, prior=added[len(history)]))
        yield history[-1]
    cut.put(best)
    cut.training(False)
    return Crossed(
        history=tuple(history),
        best=history[place],
        index=index,
        probabilities=probabilities(logits[place]),
    )


UNKNOWN = Verdict(loss=math.nan, accuracy=math.nan, balanced_accuracy=math.nan)
"""Where there is no image to judge by."""


def chosen(verdicts: Sequence[Verdict], *, images: int, monitor: str) -> int:
    """The place, on a path of penalties, of the one that so many judged images speak for."""
    added = priors(len(verdicts), images=images)

    def rank(place: int) -> tuple[float, ...]:
        prior = added[place]
        if prior is None:
            return (abs(_off_usual(path[place])),)
        return standing(replace(verdicts[place], loss=verdicts[place].loss + prior), monitor)

    path = penalties(len(verdicts))
    return min(range(len(path)), key=rank)


def priors(count: int, *, images: int) -> list[float | None]:
    """Return what is added to the loss of each penalty on a path: the prior's share of an image.

    Losses are means over images, so the negative logarithm of the prior is divided by their number.
    None where there is no image: then the penalty nearest to `USUAL` is taken.
    """
    if not images:
        return [None] * count
    return [_off_usual(penalty) ** 2 / (2 * images) for penalty in penalties(count)]


def _off_usual(penalty: float) -> float:
    """Return how far a penalty is from the usual one, in standard deviations of the prior."""
    return (math.log10(penalty) - math.log10(USUAL)) / SPREAD


def _path(
    options: FitOptions, cut: Cut, compute: Compute, others: Bank, judged: Bank
) -> Iterator[Tensor]:
    """(n, C) logits of the judged images for each penalty."""
    found: list[Tensor] = []

    def judge() -> Verdict:
        found.append(bank_logits(cut, compute, judged))
        return UNKNOWN

    for _ in _solved(options, cut, compute, others, judge):
        yield found.pop()


def _solved(
    options: FitOptions, cut: Cut, compute: Compute, bank: Bank, judge: Judge
) -> Generator[Epoch, None, None]:
    """A head on this bank, for penalty after penalty."""
    return solve(
        cut, compute, bank, judge,
        path=options.epochs,
        class_weights=class_weights_for(options, compute, bank.labels),
        smoothing=options.label_smoothing,
    )  # fmt: skip


def crossed_with(
    options: FitOptions, cut: Cut, compute: Compute, train: Bank, penalty: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What the images of a bank are to heads that were solved without them: labels, probabilities.

    (M,) and (M, C), without those that are the only ones of their class. The cut has the tensors
    afterwards that it had before.
    """
    part = parts_of(train.labels.numpy(), seed=options.seed)
    kept = {name: one.clone() for name, one in cut.trained_tensors().items()}
    labels, rows = [], []
    for number in range(PARTS):
        held = np.flatnonzero(part == number)
        if not len(held):
            continue
        others = train.take(np.flatnonzero(part != number), views=train.views)
        solve_on(options, cut, compute, (others,), penalty)
        judged = train.take(held, views=1)
        labels.append(judged.labels.numpy())
        rows.append(probabilities(bank_logits(cut, compute, judged)))
    cut.put(kept)
    return (
        np.concatenate([np.empty(0, np.int64), *labels]),
        np.concatenate([np.empty((0, len(train.catalog.classes))), *rows]),
    )


def likenesses(
    learn: Bank, plain: Bank, index: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """(M,) how near each of these images is to the others that a head without it learns from.

    In the parts of `cross`; see model/familiar.py.
    """
    part = parts_of(plain.labels.numpy(), seed=seed)
    found = np.zeros(len(part))
    for number in np.unique(part[index]):
        held = np.flatnonzero(part == number)
        others = learn.take(np.flatnonzero(part != number), views=1)
        familiar = familiar_with(partial(others.at, view=0), others.labels.numpy(), seed=seed)
        found[held] = familiar(plain.at(held, 0)).double().numpy()
    return found[index]


def parts_of(labels: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """(N,) the part of each image, shared out evenly over the classes.

    -1, which is no part, for the only image of a class: without it nobody knows the class.
    """
    found = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            order = np.random.default_rng([seed, int(label)]).permutation(len(members))
            found[members] = (order + label) % PARTS
    return found


def solve_on(
    options: FitOptions, cut: Cut, compute: Compute, banks: Sequence[Bank], penalty: float
) -> None:
    """Solve the head on these banks, with a penalty that was chosen before."""
    labels = torch.cat([bank.labels for bank in banks])
    resolve(
        cut, compute, banks,
        penalty=penalty,
        class_weights=class_weights_for(options, compute, labels),
        smoothing=options.label_smoothing,
    )  # fmt: skip


def class_weights_for(options: FitOptions, compute: Compute, labels: Tensor) -> Tensor | None:
    """(C,) for --balance classes; None where every image counts alike."""
    if options.balance == "none":
        return None
    return balanced_weights(np.bincount(labels.numpy())).to(compute.device)
