"""Evaluation: a head, or several, judged on a folder with known classes.

In: `Head`s, a `Catalog`. Out: `Evaluation`s (metrics.py), or every image's probabilities. Classes
are matched by name.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage, refuse
from tlkit.metrics import Evaluation, measure
from tlkit.options import PredictOptions
from tlkit.predict.ensemble import join, members, settle, weights_of
from tlkit.predict.reject import rule_of
from tlkit.steps import Tick

Bad = tuple[BadImage, ...]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Scores of heads, from one pass over the images."""

    alone: tuple[Evaluation, ...]
    """Of each head by itself."""
    together: Evaluation
    """Of all of them as one; a single head's own."""
    wall_s: float
    """Seconds to the last image: what comes then is counting, not looking."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What H heads make of the N images of a catalog that could be read."""

    places: NDArray[np.int64]
    """(N,) where each is in the catalog."""
    labels: NDArray[np.int64]
    """(N,), as the heads number the classes."""
    probabilities: NDArray[np.float64]
    """(N, H, C); of several heads (N, H + 1, C), all together being the last."""
    answered: NDArray[np.bool_] | None
    """The same without C: whether the answer is a name; None where none is rejected."""
    bad: Bad
    wall_s: float


def evaluate(
    head: Head, catalog: Catalog, options: PredictOptions, *, what: str = "evaluating"
) -> Generator[Tick, None, tuple[Evaluation, Bad]]:
    """Predict every image and compare. Yields ticks, returns the scores.

    Raises `UnknownName` for a class folder that the head does not know, and `ImageError` if no
    image can be read at all.
    """
    judged, bad = yield from judge([head], catalog, options, what=what)
    return judged.together, bad


def judge(
    heads: Sequence[Head], catalog: Catalog, options: PredictOptions, *, what: str = "evaluating"
) -> Generator[Tick, None, tuple[Judged, Bad]]:
    """The same for several heads: each alone, and all together."""
    seen = yield from look(heads, catalog, options, what=what)
    named = tuple(f"{one.path}: {one.reason}" for one in seen.bad)
    scores = []
    for i in range(seen.probabilities.shape[1]):
        answered = None if seen.answered is None else seen.answered[:, i]
        rows = seen.probabilities[:, i]
        found = measure(seen.labels, rows, heads[0].classes, answered=answered)
        scores.append(replace(found, unreadable=named))
    judged = Judged(alone=tuple(scores[: len(heads)]), together=scores[-1], wall_s=seen.wall_s)
    return judged, seen.bad


def look(
    heads: Sequence[Head], catalog: Catalog, options: PredictOptions, *, what: str = "evaluating"
) -> Generator[Tick, None, Looked]:
    """What the scores are of: every image's probabilities. Raises as `evaluate` does."""
    started = done = time.perf_counter()
    known = catalog.relabel(heads[0].classes)
    options = yield from settle(heads, options)
    weights = weights_of(heads, options)
    rule = rule_of(heads, options)
    places, rows, answers = [], [], []
    bad: list[BadImage] = []
    for position, one in enumerate(members(heads, known.paths, options)):
        if isinstance(one, BadImage):
            bad.append(one)
        else:
            places.append(position)
            joined = (join(one, weights, options.combine),) if len(heads) > 1 else ()
            rows.append(np.stack([answer.probabilities for answer in (*one, *joined)]))
            answers.append([rule.believes(answer) for answer in (*one, *joined)])
        done = time.perf_counter()
        yield Tick(what=what, done=position + 1, total=len(known))
    if not rows:
        refuse(bad, do="name a folder with readable images")
    return Looked(
        places=np.array(places),
        labels=known.labels[places],
        probabilities=np.stack(rows),
        answered=np.array(answers) if rule.rejects else None,
        bad=tuple(bad),
        wall_s=done - started,
    )


def warm(heads: Sequence[Head], catalog: Catalog, options: PredictOptions) -> None:
    """Look at one image, unmeasured: a network's first pass takes memory and picks algorithms.

    Of two that are compared, the first one would pay for the second.
    """
    next(members(heads, catalog.paths[:1], options), None)
