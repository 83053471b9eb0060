"""Run: probabilities of images, by a head, or by several that share their frozen part.

In: `Head`s, paths, options. Out: for each path, in order, a `Prediction` or a `BadImage`.
Streams: memory does not grow with the number of images. Each image is decoded once.
Next door: tta.py (which views), dense.py (whole images), ensemble.py (any heads together).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit import cache, cores
from tlkit.artifact import Head
from tlkit.backbone import InputSpec
from tlkit.calibration import familiarity
from tlkit.data.batches import even_parts, stretches
from tlkit.data.geometry import detail
from tlkit.data.images import BadImage, Detail, Pixels, read
from tlkit.model.device import Compute, compute_for_answers
from tlkit.model.engine import Runner, Scores, Work, choose, example_for, one_ahead, start, work_of
from tlkit.model.finite import check_scores
from tlkit.options import PredictOptions
from tlkit.predict.answers import probabilities_of
from tlkit.predict.dense import Window, window_of
from tlkit.predict.shared import Stack, stacked
from tlkit.predict.tta import Seen, View, seen, views_of

log = logging.getLogger("tlkit")

Stretch = Sequence[tuple[int, Seen | BadImage]]
"""Images that were read one after another, by their positions in the list of paths."""

Answers = Callable[[], "list[list[Answer]]"]
"""Waits for the weighted means over the V views: for each image, for each head."""

Source = Callable[[int, Detail], Pixels]
"""Position and `at_least_px` -> the pixels of that image. Raises `Unreadable`."""

UNSURE = "unsure"

NEVER_WORTH_COMPILING = 64
"""Crops so few that nobody need look how large the network is."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a head, or several together, make of one image."""

    path: Path
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """(C,), sums to 1."""
    familiarity: float | None = None
    """The share of the validation images that were less like what was learnt from: near 0 for an
    image of something else. None where the head does not know."""
    unsure: bool = False
    """Whether no class is likely enough, or the image not familiar enough, where that was asked for
    (`reject_below`, `reject_unlike`)."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    @property
    def label(self) -> str:
        """The likeliest class, or "unsure"."""
        return UNSURE if self.unsure else self.top(1)[0][0]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one head makes of one image."""

    probabilities: NDArray[np.float64]
    """(C,)"""
    similarity: float | None
    """How near it is to what the head has learnt from; None where it does not know."""

    def of(self, head: Head, path: Path) -> Prediction:
        """In the words of that head."""
        calibration = head.card.calibration
        return Prediction(
            path=path,
            classes=head.classes,
            probabilities=self.probabilities,
            familiarity=None
            if self.similarity is None
            else familiarity(calibration, self.similarity),
        )


def predict(
    head: Head, paths: Sequence[Path], options: PredictOptions
) -> Iterator[Prediction | BadImage]:
    """Mean over V views of softmax probabilities, for each path in order."""
    for one in together([head], paths, options):
        yield one if isinstance(one, BadImage) else one[0]


def together(
    heads: Sequence[Head], paths: Sequence[Path], options: PredictOptions
) -> Generator[tuple[Prediction, ...] | BadImage, None, None]:
    """The same for H heads of one group (shared.py): for each path H predictions, one per head.

    Everything that can be refused is refused before an image is read.
    """
    yield from standing(heads, options, len(paths)).over(paths)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """H heads of one group with their engines, which can be asked as often as one likes."""

    ready: Ready
    options: PredictOptions

    def over(
        self, paths: Sequence[Path], source: Source | None = None
    ) -> Generator[tuple[Prediction, ...] | BadImage, None, None]:
        """For each path H predictions. `source` is asked for pixels that no disk has."""
        cores.check_not_forked()
        ready, options = self.ready, self.options
        fine = detail(ready.spec, max(view.shorter_px for view in ready.views))
        read_ahead = stretches(
            paths,
            lambda image, position: seen(image, ready.views, ready.spec),
            sizes=even_parts(len(paths), max(1, options.batch // len(ready.views))),
            source=lambda position: (
                read(paths[position], at_least_px=fine)
                if source is None
                else source(position, fine)
            ),
            workers=options.workers,
        )
        with contextlib.closing(read_ahead):
            begun = ((stretch, _submitted(ready, stretch, paths)) for stretch in read_ahead)
            for stretch, rows in one_ahead(begun):
                left = iter(rows)
                for position, one in stretch:
                    if isinstance(one, BadImage):
                        yield one
                        continue
                    yield tuple(
                        row.of(head, paths[position])
                        for head, row in zip(ready.heads, next(left), strict=True)
                    )


def standing(heads: Sequence[Head], options: PredictOptions, images: int) -> Standing:
    """H heads of one group, placed, with engines for so many images. Raises `OptionError`."""
    ready = prepare(heads, options).started(options.engine, images)
    return Standing(ready=ready, options=options)


def _submitted(ready: Ready, stretch: Stretch, paths: Sequence[Path]) -> Answers:
    """Begin with the images of a stretch that could be read."""
    good = [(position, one) for position, one in stretch if not isinstance(one, BadImage)]
    return ready.submit([one for _, one in good], [paths[position] for position, _ in good])


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Heads that were placed, and how they look at an image."""

    stack: Stack
    compute: Compute
    views: tuple[View, ...]
    window: Window | None
    """How whole images are scored, where a view is one; None: as any other image."""
    batch: int
    spec: InputSpec
    heads: tuple[Head, ...]
    crops: Runner | None = None
    """What runs the frozen part of crops, or all of a head that has none; None before `started`."""
    wholes: Runner | None = None
    """The same for whole images, as far as the neck where windows are scored."""

    @property
    def through(self) -> int:
        """The parts that `wholes` runs."""
        common = self.stack.common
        return common if self.window is None else min(common, self.stack.neck)

    def under(self, options: PredictOptions) -> Ready:
        """The same heads with the views of the options. Raises `OptionError`."""
        views = views_of(options, self.spec)
        window = None
        if any(view.whole for view in views):
            window = window_of(self.heads[0].model, str(self.heads[0].path))
        return replace(self, views=views, window=window)

    def started(self, engine: str, images: int, *, crops_by: Runner | None = None) -> Ready:
        """With engines for the views of so many images. Raises `OptionError`.

        `crops_by` was started for crops of the same heads, and need not be once more.
        """
        crops = images * sum(not view.whole for view in self.views)
        wholes = images * sum(view.whole for view in self.views)
        # A whole image is so many crops, if it is half as long again as it is wide.
        sizes = [1.5 * (one.shorter_px / self.spec.crop_px) ** 2 for one in self.views if one.whole]
        larger = sum(sizes) / max(1, len(sizes))
        return replace(
            self,
            crops=crops_by or self._started(engine, self.stack.common, crops, any_size=False),
            wholes=self._started(engine, self.through, round(wholes * larger), any_size=True),
        )

    def _started(self, engine: str, parts: int, crops: int, *, any_size: bool) -> Runner | None:
        """An engine for the first parts of the stack and the work of so many crops, if any."""
        if not crops:
            return None
        module = nn.Sequential(*self.stack.parts[0][:parts])
        example = example_for(self.spec)
        work = Work(images=crops, multiply_adds=0, any_size=any_size)
        if crops > NEVER_WORTH_COMPILING:
            counted, _ = work_of(module, self.compute, example[:1], crops)
            work = replace(counted, any_size=any_size)
        choice = choose(engine, self.compute, work)
        if crops > NEVER_WORTH_COMPILING:
            log.info(choice.reason)
        keep = self.stack.border > 0 and cache.limit() > 0
        # bf16 differs by more from engine to engine, and whoever names it is told so.
        scores = self._scores_behind(parts, any_size) if self.compute.precision == "fp32" else None
        runner = start(choice, module, self.compute, example, work, keep=keep, scores=scores)
        if runner.fallback:
            log.info(runner.fallback)
        return runner

    def _scores_behind(self, parts: int, whole: bool) -> Scores:
        """Return what makes scores of all heads of the output of the first parts of the stack."""

        def scores(output: Tensor) -> Tensor:
            with torch.inference_mode():
                logits = self._rest(output, parts, whole=whole)
            return torch.cat(
                [
                    one[:, : len(head.classes)].cpu() / head.card.calibration.temperature
                    for head, one in zip(self.heads, logits, strict=True)
                ],
                dim=1,
            )

        return scores

    def submit(self, images: Sequence[Seen], paths: Sequence[Path] = ()) -> Answers:
        """Begin with these images; `paths` names them where an answer is not a number."""
        weights = torch.tensor([view.weight for view in self.views], dtype=torch.float64)
        starts = np.cumsum([0, *(len(image.pixels) for image in images)])[:-1]
        views = [start + np.array(one.of) for start, one in zip(starts, images, strict=True)]
        logits = self._begin(images)

        def answers() -> list[list[Answer]]:
            if not images:
                return []
            where = torch.from_numpy(np.stack(views))
            names = [path for path, image in zip(paths, images, strict=False) for _ in image.pixels]
            found = []
            for head, one in zip(self.heads, logits(), strict=True):
                count = len(head.classes)
                soft = probabilities_of(head, one[:, :count], names)
                similarity = one[:, count:].double()
                check_scores(similarity, head.path, names)
                rows = torch.cat([soft, similarity], dim=1)[where]
                mean = (rows * weights[:, None]).sum(dim=1) / weights.sum()
                found.append([_answer(row, count) for row in mean.numpy()])
            return [list(one) for one in zip(*found, strict=True)]

        return answers

    def _begin(self, images: Sequence[Seen]) -> Callable[[], list[Tensor]]:
        """For each head (P, C) of all different pixels. Those of one shape go together."""
        pixels = [one for image in images for one in image.pixels]
        whole = [one for image in images for one in image.whole]
        alike: dict[tuple[object, ...], list[int]] = {}
        for place, one in enumerate(pixels):
            alike.setdefault((whole[place], one.shape), []).append(place)
        places: list[int] = []
        parts = []
        for where in alike.values():
            height, width, _ = pixels[where[0]].shape
            # As many pixels in a step as `batch` plain images have, but at least one image.
            most = max(1, self.batch * math.prod(self.spec.size) // (height * width))
            for begin in range(0, len(where), most):
                some = where[begin : begin + most]
                stack = torch.from_numpy(np.stack([pixels[i] for i in some]))
                places += some
                parts.append(self._score(stack.permute(0, 3, 1, 2), whole=whole[some[0]]))

        def logits() -> list[Tensor]:
            order = torch.tensor(places).argsort()
            scores = [part() for part in parts]
            return [torch.cat(each)[order] for each in zip(*scores, strict=True)]

        return logits

    def _score(self, images: Tensor, *, whole: bool) -> Callable[[], list[Tensor]]:
        """(B, channels, h, w) uint8 -> for each head (B, C) on the CPU, once it is asked for."""
        runner, done = (self.wholes, self.through) if whole else (self.crops, self.stack.common)
        begun = None if runner is None else runner.submit(images)

        def scored() -> list[Tensor]:
            with torch.inference_mode():
                found, at = (images, 0) if begun is None else (begun(), done)
                return [one.cpu() for one in self._rest(found, at, whole=whole)]

        return scored

    def _rest(self, output: Tensor, start: int, *, whole: bool) -> list[Tensor]:
        """Run the parts from `start` over what those before have given: for each head (B, C)."""
        if whole and self.window is not None:
            return self._by_windows(self.window, [output], start)
        return self.stack.run(self.compute, [output], start, self.stack.end)

    def _by_windows(self, window: Window, found: list[Tensor], at: int) -> list[Tensor]:
        """The mean over all windows of their scores: for each head (B, C). Runs the parts from
        `at`.
        """
        found = self.stack.run(self.compute, found, at, self.stack.neck)
        sums: list[Tensor] = []
        places = 0
        for strips in zip(*(window.slide(one) for one in found), strict=True):
            vectors = [one.flatten(0, 1) for one in strips]
            scores = self.stack.run(self.compute, vectors, self.stack.neck + 1, self.stack.end)
            here = [one.unflatten(0, strips[0].shape[:2]).sum(dim=1) for one in scores]
            sums = [one + more for one, more in zip(sums, here, strict=True)] if sums else here
            places += strips[0].shape[1]
        return [one / places for one in sums]


def _answer(row: NDArray[np.float64], classes: int) -> Answer:
    """From the probabilities, and behind them, where there is one, the similarity."""
    told = row[classes:]
    return Answer(probabilities=row[:classes], similarity=float(told[0]) if len(told) else None)


def prepare(heads: Sequence[Head], options: PredictOptions) -> Ready:
    """Place H heads of one group. Raises `OptionError` for what they cannot do."""
    compute = compute_for_answers(options.device, options.precision, fitted=heads[0].card.precision)
    stack = stacked(heads)
    stack.place(compute)
    ready = Ready(
        stack=stack,
        compute=compute,
        views=(),
        window=None,
        batch=options.batch,
        spec=heads[0].model.spec,
        heads=tuple(heads),
    )
    return ready.under(options)
