"""Evaluation: a head judged on a folder with known classes.

In: a `Head`, a `Catalog`. Out: an `Evaluation` (metrics.py). Classes are matched by name.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from tlkit.artifact import Head
from tlkit.data.folder import Catalog
from tlkit.data.images import BadImage, refuse
from tlkit.metrics import Evaluation, measure
from tlkit.options import PredictOptions
from tlkit.predict.run import predict
from tlkit.steps import Tick


def evaluate(
    head: Head, catalog: Catalog, options: PredictOptions, *, what: str = "evaluating"
) -> Generator[Tick, None, tuple[Evaluation, tuple[BadImage, ...]]]:
    """Predict every image and compare. Yields ticks, returns the scores.

    Raises `UnknownName` for a class folder that the head does not know, and `ImageError` if no
    image can be read at all.
    """
    known = catalog.relabel(head.classes)
    labels, rows = [], []
    bad: list[BadImage] = []
    for position, one in enumerate(predict(head, known.paths, options)):
        if isinstance(one, BadImage):
            bad.append(one)
        else:
            labels.append(known.labels[position])
            rows.append(one.probabilities)
        yield Tick(what=what, done=position + 1, total=len(known))
    if not rows:
        refuse(bad, do="name a folder with readable images")
    scores = measure(np.array(labels), np.stack(rows), head.classes)
    named = tuple(f"{one.path}: {one.reason}" for one in bad)
    return replace(scores, unreadable=named), tuple(bad)
