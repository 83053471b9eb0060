"""Classifier: the verbs `load`, `predict`, `evaluate`, `backbones`.

In: a head file, images. Out: the records that the command line prints.
Next door: fitting.py (making a head). This module needs nothing of train/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit import artifact, runs
from tlkit.artifact import Card, Head
from tlkit.data.folder import find_images, scan_for_judging
from tlkit.data.images import BadImage
from tlkit.metrics import Evaluation
from tlkit.options import PredictOptions
from tlkit.plugins import Found, find
from tlkit.predict.run import Prediction, predict
from tlkit.report.evaluation import evaluate
from tlkit.steps import finish

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A loaded head. Made by `tlkit.load`."""

    head: Head

    @property
    def card(self) -> Card:
        """What the head file says of itself."""
        return self.head.card

    @property
    def classes(self) -> tuple[str, ...]:
        """C names, in the order of the probabilities."""
        return self.head.classes

    def predict(self, paths: Paths, **options: Any) -> list[Prediction | BadImage]:
        """A `Prediction` for each image that paths and folders mean; unreadable: a `BadImage`.

        `options` are the fields of `tlkit.PredictOptions`. Raises `TlkitError`.
        """
        return list(self.stream(paths, **options))

    def stream(self, paths: Paths, **options: Any) -> Iterator[Prediction | BadImage]:
        """The same one by one, at constant memory."""
        return predict(self.head, find_images(as_paths(paths)), PredictOptions.of(options))

    def evaluate(self, folder: str | Path, **options: Any) -> Evaluation:
        """Scores on a folder of class folders (or the test part of a folder that has parts).

        Images that cannot be read take no part, and are named in `Evaluation.unreadable`.
        """
        looking = PredictOptions.of(options)
        evaluation, _ = finish(evaluate(self.head, scan_for_judging(Path(folder)), looking))
        return evaluation


def as_paths(paths: Paths) -> list[Path]:
    """One path or several, as `Path`s."""
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(one) for one in paths]


def load(head: str | Path | None = None, *, weights: str | Path = "") -> Classifier:
    """A head from its file or run folder; the newest run's where none is named.

    `weights` is the weight file for a head that was fitted on one. Raises `TlkitError`.
    """
    path = runs.newest() if head is None else runs.head_in(Path(head))
    return Classifier(head=artifact.load(path, weights=str(weights)))


def backbones() -> list[Found]:
    """Every backbone and family that is installed. Reads metadata, imports no plugin."""
    return list(find())
