"""Classifier: the verbs `load`, `predict`, `evaluate`, `backbones`.

In: head files, images. Out: the records that the command line prints.
Next door: fitting.py (making a head). This module needs nothing of train/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit import artifact
from tlkit.artifact import Head
from tlkit.card import Card
from tlkit.data.folder import scan_for_judging
from tlkit.data.images import BadImage
from tlkit.errors import OptionError
from tlkit.files import as_path
from tlkit.metrics import Evaluation
from tlkit.options import PredictOptions
from tlkit.plugins import Found, find
from tlkit.predict.ensemble import match, predict, settle
from tlkit.predict.given import Images, given_images
from tlkit.predict.run import Prediction
from tlkit.report.evaluation import judge
from tlkit.runs import Paths, head_files
from tlkit.settings import with_own_settings
from tlkit.steps import finish


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A loaded head, or several that are asked together. Made by `tlkit.load`."""

    heads: tuple[Head, ...]

    @property
    def head(self) -> Head:
        """The head, where it is the only one. Raises `OptionError` where there are several."""
        if len(self.heads) > 1:
            raise OptionError(
                "a classifier of several heads has no single one",
                found=f"{len(self.heads)} heads",
                expected="one",
                do="choose from `heads`",
            )
        return self.heads[0]

    @property
    def card(self) -> Card:
        """What the only head's file says of itself."""
        return self.head.card

    @property
    def classes(self) -> tuple[str, ...]:
        """C names, in the order of the probabilities: the first head's."""
        return self.heads[0].classes

    def predict(self, images: Images, **options: Any) -> list[Prediction | BadImage]:
        """Return a `Prediction` for each image, in order; for an unreadable one a `BadImage`.

        `images` is a path, an image in memory, or any number of these: files, folders (searched to
        every depth), images of Pillow's, uint8 arrays (H, W, 3) in RGB, open files, the bytes of a
        file. A file that is named twice is answered twice; only folders that overlap are merged.
        An image in memory is called "image 0" by its position. `options` are the fields of
        `tlkit.PredictOptions`. Raises `TlkitError`.
        """
        return list(self.stream(images, **options))

    def stream(self, images: Images, **options: Any) -> Iterator[Prediction | BadImage]:
        """The same one by one, at constant memory."""
        given = given_images(images)
        return predict(self.heads, given.paths, PredictOptions.of(options), given.source)

    @with_own_settings
    def evaluate(self, folder: str | Path, **options: Any) -> Evaluation:
        """Scores on a folder of class folders (or the test part of a folder that has parts).

        Images that cannot be read take no part, and are named in `Evaluation.unreadable`.
        """
        looking = PredictOptions.of(options)
        judged, _ = finish(judge(self.heads, scan_for_judging(as_path(folder, "folder")), looking))
        return judged.together

    @with_own_settings
    def learn_weights(self, folder: str | Path, **options: Any) -> str:
        """The `head_weights` with which several heads have the lowest mean log loss on a folder.

        The folder's images should be neither learnt from nor tested on; of one with parts, val is
        taken. The other options are those that will be predicted with.
        """
        learning = PredictOptions.of({**options, "learn_weights": str(as_path(folder, "folder"))})
        return finish(settle(self.heads, learning)).head_weights


def load(head: Paths | None = None, *, weights: str | Path = "") -> Classifier:
    """A head from its file or run folder; the newest run's where none is named.

    Several, or the run folder of a cross-validation, make one classifier of all of them. `weights`
    is the weight file for heads that were fitted on one. Raises `TlkitError`.
    """
    heads = artifact.load_all(head_files(head), weights=str(weights))
    match(heads)
    return Classifier(heads=heads)


def backbones() -> list[Found]:
    """Every backbone and family that is installed. Reads metadata, imports no plugin."""
    return list(find())
