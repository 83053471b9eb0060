"""Estimator: scikit-learn's face of tlkit.

In: images, as paths or arrays, and a label for each. Out: an estimator like any other, for
`cross_val_score`, `GridSearchCV`, `Pipeline` and the like.
What the frozen part makes of an image is kept and found by its bytes (train/bank.py), so that every
candidate of a search and every fold shares it, in fitting and in predicting.
Next door: fitting.py (the same from a folder).
"""

from __future__ import annotations

import inspect
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor, nn

from tlkit import artifact
from tlkit.artifact import Head
from tlkit.card import Card
from tlkit.data.batches import even_parts, plain_views
from tlkit.data.folder import Catalog, Parts
from tlkit.data.images import refuse
from tlkit.data.names import Names
from tlkit.data.transforms import augmentation
from tlkit.errors import (
    DataError,
    OptionWithoutEffect,
    OptionWithoutEffectWarning,
    few,
    unknown,
)
from tlkit.files import write_bytes
from tlkit.fitting import Fitted, fit_parts
from tlkit.model.assemble import Cut
from tlkit.model.device import Compute, compute_for_answers
from tlkit.options import Declared, FitOptions, declared
from tlkit.plugins import choose
from tlkit.predict.answers import probabilities_of
from tlkit.settings import with_own_settings
from tlkit.steps import finish
from tlkit.train.bank import Bank, extractor, hang_on_rounding
from tlkit.train.judge import bank_outputs

MOST_REPEATED = 1000
"""Largest sample weight."""

NOT_HERE = ("folds", "group_by")
"""Options of a fit that scikit-learn has words of its own for."""

PARAMETERS: tuple[Declared, ...] = tuple(
    one for one in declared(FitOptions) if one.name not in NOT_HERE
)


class ImageClassifier(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A classifier of images that behaves as scikit-learn's do.

    X is a sequence of N images: paths, or arrays of uint8, (H, W), (H, W, 1) or (H, W, 3) in RGB,
    of whatever sizes. y holds N labels of any kind. The parameters are the fields of
    `tlkit.FitOptions` but for folds and groups, which scikit-learn brings; a share `val_fraction`
    of what is given to `fit` chooses the penalty or the epoch.

    Attributes after `fit`: `classes_` (C,), and `card_`, what a head file says of itself.
    Raises `TlkitError`; what is wrong with X or y is a `DataError`, which is a `ValueError` too.
    """

    _live: tuple[Head, Compute] | None
    """The head on its backbone; None where it came as a pickle and was not used yet."""

    def __init__(self, **parameters: Any) -> None:
        known = {one.name: one.default for one in PARAMETERS}
        for name in parameters:
            if name not in known:
                raise unknown(known, name, "parameter")
        for name, default in known.items():
            setattr(self, name, parameters.get(name, default))

    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
                for one in PARAMETERS
            ),
        ]
    )

    @with_own_settings
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImageClassifier:
        """Fit a head on N images and their labels. Returns the estimator.

        `sample_weight` (N,) are whole numbers: an image counts in every part of the fit as if it
        were given so many times, 0 leaves it out. Weights that are all alike change nothing. Others
        are refused: the choice of the penalty by held-out images has no exact meaning for them.
        """
        options = FitOptions.of({one.name: getattr(self, one.name) for one in PARAMETERS})
        if y is None:
            raise _refused("requires y to be passed, but the target y is None", "a label for each")
        check_classification_targets(y)
        values = column_or_1d(y, warn=True)
        with _files(X) as given:
            if len(values) != len(given):
                raise _refused(f"{len(given)} images and {len(values)} labels", "one for each")
            places = _repeated(sample_weight, len(given))
            paths = [given[place] for place in places]
            classes, labels = np.unique(values[places], return_inverse=True)
            _must_match(labels, classes)
            catalog = Catalog(
                root=Path(),
                classes=tuple(map(str, classes)),
                files=Names.of(map(str, paths)),
                labels=labels.astype(np.int64),
            )
            parts = Parts(train=catalog, val=None, test=None)
            fitted, options = _fitted(options, parts)
        trained = fitted.trained
        self.classes_ = classes
        self.card_: Card = fitted.card
        self._file = artifact.to_bytes(artifact.tensors_of(trained.cut), fitted.card)
        self._engine = trained.engine
        self._weights = options.weights if trained.weights.name == "file" else ""
        self._live = self._placed(
            Head(card=fitted.card, model=trained.cut.model, path=Path(), cut=trained.cut)
        )
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(N, C), in the order of `classes_`; calibrated."""
        logits = self._run(X, up_to=None)
        head, _ = self._loaded()
        soft: NDArray[np.float64] = probabilities_of(head, logits).numpy()
        return soft

    def predict(self, X: Any) -> NDArray[Any]:
        """(N,) the likeliest class of each image."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found

    def transform(self, X: Any) -> NDArray[np.float32]:
        """(N, D): what the head sees of each image."""
        found: NDArray[np.float32] = self._run(X, up_to=-1).numpy()
        return found

    @property
    def _n_features_out(self) -> int:
        """D, for `get_feature_names_out`."""
        head, _ = self._loaded()
        scale = head.model.head.get_submodule("scale")
        return len(scale.get_buffer("shift"))

    def save(self, path: str | Path) -> None:
        """Write the head file, for `tlkit.load` and the command line."""
        check_is_fitted(self)
        write_bytes(Path(path), self._file)

    @with_own_settings
    def _run(self, X: Any, *, up_to: int | None) -> Tensor:
        """(N, ...) of all parts of the network, or of those before `up_to`."""
        check_is_fitted(self)
        head, compute = self._loaded()
        with _files(X) as paths:
            bank = self._bank(paths)
            if bank is None:
                parts = nn.Sequential(*(part for _, part in head.model.parts()))
                return self._on_pixels(paths, parts[:up_to])
            if up_to is None:
                return self._on_bank(paths, bank)
        return bank_outputs(_cut(head).trained[:up_to], compute, bank)

    def _bank(self, paths: list[Path]) -> Bank | None:
        """What the frozen part makes of the images; None where nothing worth storing is frozen."""
        head, compute = self._loaded()
        cut = _cut(head)
        cut.training(False)
        if not cut.has_bank:
            return None
        runs = extractor(
            cut,
            compute,
            backbone=head.card.backbone,
            engine=self._engine,
            images=len(paths),
            keep=self.bank == "disk",
            workers=self.workers,
        )
        runs.scores = lambda rows: (
            compute.infer(cut.trained, rows).cpu() / head.card.calibration.temperature
        )
        catalog = Catalog(
            root=Path(),
            classes=head.classes,
            files=Names.of(map(str, paths)),
            labels=np.zeros(len(paths), np.int64),
        )
        look = augmentation("none", cut.model.spec, 0)
        bank = finish(runs.fill(catalog, look, views=1, what="features"))
        refuse(list(bank.bad))
        return bank

    def _on_pixels(self, paths: list[Path], module: nn.Module) -> Tensor:
        """(N, ...) of a module that takes the plain views."""
        head, compute = self._loaded()
        views = plain_views(head.model.spec, paths, sizes=even_parts(len(paths), 32))
        return torch.cat([compute.infer(module, one).cpu() for one in views])

    def _on_bank(self, paths: list[Path], bank: Bank) -> Tensor:
        """(N, C) logits from the bank's rows; from the pixels where these are too coarse for it."""
        head, compute = self._loaded()
        trained = _cut(head).trained
        logits = bank_outputs(trained, compute, bank)

        def soft(rows: Tensor) -> Tensor:
            return probabilities_of(head, compute.infer(trained, rows).cpu())

        again: list[int] = []
        for part in np.split(np.arange(len(paths)), range(256, len(paths), 256)):
            again += part[hang_on_rounding(soft, bank.at(part, 0))].tolist()
        if again:
            logits[again] = self._on_pixels([paths[one] for one in again], head.model)
        return logits

    @with_own_settings
    def _loaded(self) -> tuple[Head, Compute]:
        """The head on its backbone: what was fitted here, or built again from the file."""
        if self._live is None:
            with tempfile.TemporaryDirectory(prefix="tlkit-") as place:
                path = Path(place) / "head.safetensors"
                path.write_bytes(self._file)
                # Of no file that lasts: there is nothing to call it by.
                head = replace(artifact.load(path, weights=self._weights), path=Path())
            self._live = self._placed(head)
        return self._live

    def _placed(self, head: Head) -> tuple[Head, Compute]:
        """The head where it answers, in the arithmetic of every answer."""
        compute = compute_for_answers(
            self.device, self.precision, fitted=head.card.precision, layout=self.layout
        )
        compute.place(head.model)
        return head, compute

    def __getstate__(self) -> dict[str, Any]:
        """Without the backbone, which is not ours: a pickle is hardly larger than a head file."""
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_live": None} if "_live" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _fitted(options: FitOptions, parts: Parts) -> tuple[Fitted, FitOptions]:
    """Fit with the options that have an effect, and return these; warn of the others.

    A search tries every combination, and in some of them an option has nothing to act on.
    """
    while True:
        try:
            return finish(fit_parts(options, choose(options.backbone), parts)), options
        except OptionWithoutEffect as error:
            message = f"{error.found} has no effect here and is left out; it wants {error.expected}"
            warnings.warn(message, OptionWithoutEffectWarning, stacklevel=3)
            plain = FitOptions()
            options = replace(options, **{name: getattr(plain, name) for name in error.names})


def _cut(head: Head) -> Cut:
    """Where the head's model is cut: every head that is fitted or loaded here has it."""
    if head.cut is None:
        raise RuntimeError("unreachable: a head that was fitted here has its cut")
    return head.cut


@contextmanager
def _files(X: Any) -> Iterator[list[Path]]:
    """The images as files; arrays are written to a folder that goes when the block ends."""
    from PIL import Image

    images = _each(X)
    with tempfile.TemporaryDirectory(prefix="tlkit-") as place:
        paths = []
        for number, one in enumerate(images):
            if isinstance(one, str | os.PathLike):
                paths.append(Path(one).absolute())
                continue
            path = Path(place) / f"{number:07d}.png"
            # Quickly: the file is read once.
            Image.fromarray(_pixels(one, number)).save(path, compress_level=1)
            paths.append(path)
        yield paths


def _each(X: Any) -> list[Any]:
    """The images of X, at least one."""
    if isinstance(X, str | os.PathLike) or not hasattr(X, "__len__"):
        raise _refused(f"a {type(X).__name__} as X", "a sequence of paths or of images")
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(values, np.ndarray) and values.dtype.kind in "OU" and values.ndim == 2:
        # A column of a table.
        if values.shape[1] != 1:
            raise _refused(f"X of shape {values.shape}", "one column of paths")
        values = values[:, 0]
    images = list(values)
    if not images:
        raise _refused("X without an image", "at least one")
    return images


def _pixels(image: Any, number: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) uint8."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not fits or not array.size:
        raise _refused(
            f"image {number} of X: a {type(image).__name__}, {array.dtype} of shape {array.shape}",
            "a path, or uint8 of shape (H, W), (H, W, 1) or (H, W, 3)",
        )
    pixels: NDArray[np.uint8] = array
    return pixels


def _repeated(sample_weight: Any, images: int) -> NDArray[np.int64]:
    """Return positions of the images, each as often as its weight says. Raises `DataError`."""
    if sample_weight is None:
        return np.arange(images)
    try:
        weights = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _refused("sample weights that are no numbers", "a number for each image") from error
    if weights.shape != (images,):
        raise _refused(
            f"sample_weight of shape {weights.shape}: Sample weights must be 1D, and one for each",
            f"shape ({images},)",
        )
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise _refused("sample weights that are negative, all 0, or no numbers", "0 or more")
    if (weights == weights[0]).all():
        return np.arange(images)
    if not (weights == np.rint(weights)).all() or weights.max() > MOST_REPEATED:
        raise _refused(
            "sample weights that are no whole numbers, or large ones",
            f"whole numbers up to {MOST_REPEATED}: an image counts as if it were given so often",
        )
    counts = weights.astype(np.int64)
    # The loss is a mean: what all have in common changes nothing.
    return np.repeat(np.arange(images), counts // np.gcd.reduce(counts))


def _must_match(labels: NDArray[np.int64], classes: NDArray[Any]) -> None:
    """Raise `DataError` for labels that say too little to learn from."""
    names = [str(one) for one in classes]
    counts = np.bincount(labels, minlength=len(classes))
    if len(classes) < 2:
        raise _refused(f"one class: {few(names)}", "labels of at least two classes")
    if lone := [name for name, count in zip(names, counts, strict=True) if count < 2]:
        raise _refused(
            f"one image of {few(lone)}", "at least 2 of each class: to learn from and to judge by"
        )


def _refused(found: str, expected: str) -> DataError:
    return DataError(
        "these images cannot be classified", found=found, expected=expected, do="correct X and y"
    )
