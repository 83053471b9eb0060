"""Run: probabilities of images, by a head.

In: a `Head`, paths, options. Out: for each path, in order, a `Prediction` or a `BadImage`.
Streams: memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.data.batches import batches, even_parts
from tlkit.data.images import BadImage
from tlkit.model.device import Engine, engine
from tlkit.options import PredictOptions
from tlkit.predict.tta import seen, views_of


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head makes of one image."""

    path: Path
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """(C,), sums to 1."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top(1)[0][0]


def predict(
    head: Head, paths: Sequence[Path], options: PredictOptions
) -> Iterator[Prediction | BadImage]:
    """Mean over V views of softmax probabilities, for each path in order."""
    chosen = engine(
        options.device,
        head.card.precision if options.precision == "as-fitted" else options.precision,
    )
    spec = head.model.spec
    views = views_of(options, spec)
    chosen.place(head.model)
    head.model.eval()
    for part in batches(
        paths,
        lambda image, position: seen(image, views, spec),
        sizes=even_parts(len(paths), max(1, options.batch // len(views))),
        at_least_px=max(view.shorter_px for view in views),
        workers=options.workers,
    ):
        rows = dict(zip(part.index, _mean(head, chosen, part.images, options.batch), strict=True))
        for position in sorted([*rows, *part.bad]):
            if position in part.bad:
                yield part.bad[position]
            else:
                yield Prediction(
                    path=paths[position], classes=head.classes, probabilities=rows[position]
                )


def _mean(head: Head, chosen: Engine, images: torch.Tensor, batch: int) -> NDArray[np.float64]:
    """(B, V, 3, h, w) -> (B, C)."""
    if len(images) == 0:
        return np.empty((0, len(head.classes)))
    with torch.inference_mode():
        logits = [chosen.run(head.model, one).cpu() for one in images.flatten(0, 1).split(batch)]
    probabilities = torch.cat(logits).double().softmax(dim=1)
    mean: NDArray[np.float64] = probabilities.unflatten(0, images.shape[:2]).mean(dim=1).numpy()
    return mean
