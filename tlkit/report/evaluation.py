"""Evaluation: a head, or several, judged on a folder with known classes.

In: `Head`s, a `Catalog`. Out: `Evaluation`s (metrics.py). Classes are matched by name.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
    known = catalog.relabel(heads[0].classes)
    options = yield from settle(heads, options)
    weights = weights_of(heads, options)
    rule = rule_of(heads, options)
    labels, rows, answers = [], [], []
    bad: list[BadImage] = []
    for position, one in enumerate(members(heads, known.paths, options)):
        if isinstance(one, BadImage):
            bad.append(one)
        else:
            labels.append(known.labels[position])
            joined = (join(one, weights, options.combine),) if len(heads) > 1 else ()
            rows.append(np.stack([answer.probabilities for answer in (*one, *joined)]))
            answers.append([rule.believes(answer) for answer in (*one, *joined)])
        yield Tick(what=what, done=position + 1, total=len(known))
    if not rows:
        refuse(bad, do="name a folder with readable images")
    named = tuple(f"{one.path}: {one.reason}" for one in bad)
    table = np.stack(rows)
    scores = []
    for i in range(table.shape[1]):
        answered = np.array(answers)[:, i] if rule.rejects else None
        found = measure(np.array(labels), table[:, i], heads[0].classes, answered=answered)
        scores.append(replace(found, unreadable=named))
    return Judged(alone=tuple(scores[: len(heads)]), together=scores[-1]), tuple(bad)
