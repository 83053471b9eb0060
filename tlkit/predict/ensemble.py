"""Ensemble: several heads asked together, on any backbones and input sizes.

In: loaded heads with the same classes, paths, options. Out: `Prediction`s, or each head's own.
The heads' streams go in step, each with the views and the size of its own network; heads that share
their frozen part are one stream. Classes are matched by name, in the first head's order.
Not here: one head's probabilities (run.py), scores (report/evaluation.py).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.data.folder import scan_for_choosing
from tlkit.data.images import BadImage, refuse
from tlkit.data.pixels import ReadOnce
from tlkit.errors import HeadFileError, OptionError, listing
from tlkit.metrics import SMALLEST, logs, softmax
from tlkit.model.finite import check_finite
from tlkit.options import PredictOptions
from tlkit.predict.reject import rule_of
from tlkit.predict.run import Prediction, Source, Standing, prepare, standing
from tlkit.predict.shared import groups
from tlkit.settings import with_own_settings
from tlkit.steps import Tick, finish

Floats = NDArray[np.float64]

LARGEST = 100.0
"""Of learnt weights of logits: heads that are never wrong would have no bound."""


def match(heads: Sequence[Head]) -> list[NDArray[np.int64]]:
    """For each head, where each of the first head's C classes is among its own.

    Raises `HeadFileError` where the sets of names differ.
    """
    names = heads[0].classes
    faults = []
    for head in heads[1:]:
        less = [one for one in names if one not in head.classes]
        more = [one for one in head.classes if one not in names]
        faults += [f"{head.path} lacks: {', '.join(less)}"] * bool(less)
        faults += [f"{head.path} has besides: {', '.join(more)}"] * bool(more)
    if faults:
        raise HeadFileError(
            "heads that know different classes cannot be asked together",
            found=listing(faults),
            expected=f"the classes of {heads[0].path}: {', '.join(names)}",
            do="name heads that were fitted on the same classes; their order does not matter",
        )
    return [np.array([head.classes.index(one) for one in names]) for head in heads]


@with_own_settings
def check(heads: Sequence[Head], options: PredictOptions) -> None:
    """Refuse now what would be refused later, when images have been read."""
    match(heads)
    if len(heads) == 1:
        options.refuse(
            ["combine", "head_weights", "learn_weights"], "several heads: --head A --head B"
        )
    if options.learn_weights:
        options.refuse(["head_weights"], "one of --head-weights and --learn-weights")
    weights_of(heads, options)
    rule_of(heads, options)
    for group in groups(heads):
        prepare([heads[i] for i in group], options)


def weights_of(heads: Sequence[Head], options: PredictOptions) -> Floats:
    """(H,) what each head counts. For a mean they sum to 1; `equal` logits are added as they are.

    Raises `OptionError`.
    """
    if options.head_weights == "equal":
        weights = np.ones(len(heads))
    else:
        weights = _parsed(options.head_weights, len(heads))
    if options.combine == "logits":
        return weights
    shares: Floats = weights / weights.max()  # their sum is finite, however large they are
    return np.asarray(shares / shares.sum(), np.float64)


def _parsed(text: str, count: int) -> Floats:
    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    sound = all(math.isfinite(one) and one >= 0 for one in numbers) and sum(numbers) > 0
    if not sound or len(numbers) != count:
        example = ",".join(f"{1 / count:.2g}" for _ in range(count))
        raise OptionError(
            "the weights of the heads cannot be used",
            found=f"--head-weights {text}, for {count} heads",
            expected=f"{count} numbers with commas between, none below 0 and not all 0, "
            "in the order of the heads",
            do=f"correct them, such as --head-weights {example}, or leave them out",
        )
    return np.array(numbers)


def combined(rows: Floats, weights: Floats, combine: str) -> Floats:
    """Probabilities (..., H, C) of H heads -> (..., C), summing to 1.

    `mean`: sum of w p. `logits`: softmax of the sum of w log p, which is that of the summed logits,
    since log p is the logits less one number for all classes.
    """
    if combine == "mean":
        mean: Floats = np.einsum("h,...hc->...c", weights, rows)
        return mean
    return softmax(np.einsum("h,...hc->...c", weights, logs(rows)))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Heads that were placed and started, and are asked about as many lists of paths as one likes.

    Made by `ask`.
    """

    heads: tuple[Head, ...]
    options: PredictOptions
    """Settled."""
    orders: tuple[NDArray[np.int64], ...]
    groups: tuple[tuple[int, ...], ...]
    standing: tuple[Standing, ...]
    """One of each group."""

    @with_own_settings
    def members(
        self, paths: Sequence[Path], source: Source | None = None
    ) -> Iterator[tuple[Prediction, ...] | BadImage]:
        """For each path what each of H heads makes of it, in the first head's order of classes."""
        if source is None and len(self.standing) > 1:
            source = ReadOnce(paths, len(self.standing))
        with contextlib.ExitStack() as opened:
            streams = [
                opened.enter_context(contextlib.closing(one.over(paths, source)))
                for one in self.standing
            ]
            for answers in zip(*streams, strict=True):
                found: dict[int, Prediction] = {}
                bad = None
                for group, answer in zip(self.groups, answers, strict=True):
                    if isinstance(answer, BadImage):
                        bad = answer
                        continue
                    found.update(zip(group, answer, strict=True))
                yield bad or alike(found, self.heads[0].classes, self.orders)

    @with_own_settings
    def predict(
        self, paths: Sequence[Path], source: Source | None = None
    ) -> Iterator[Prediction | BadImage]:
        """What the heads together make of each path, in order.

        `source` is asked for pixels that no disk has; its images are then only named by the paths.
        """
        weights = weights_of(self.heads, self.options)
        rule = rule_of(self.heads, self.options)
        for one in self.members(paths, source):
            if isinstance(one, BadImage):
                yield one
                continue
            joined = join(one, weights, self.options.combine)
            yield replace(joined, unsure=not rule.believes(joined))


@with_own_settings
def ask(heads: Sequence[Head], options: PredictOptions, images: int) -> Asked:
    """Place at least one head and start its engines for so many images.

    `options` are settled. Raises `HeadFileError`, `OptionError`.
    """
    shared = groups(heads)
    return Asked(
        heads=tuple(heads),
        options=options,
        orders=tuple(match(heads)),
        groups=tuple(tuple(one) for one in shared),
        standing=tuple(standing([heads[i] for i in one], options, images) for one in shared),
    )


def members(
    heads: Sequence[Head], paths: Sequence[Path], options: PredictOptions
) -> Iterator[tuple[Prediction, ...] | BadImage]:
    """For each path what each of H heads makes of it, in the first head's order of classes."""
    yield from ask(heads, options, len(paths)).members(paths)


def alike(
    found: Mapping[int, Prediction], classes: tuple[str, ...], orders: Sequence[NDArray[np.int64]]
) -> tuple[Prediction, ...]:
    """What H heads, by their positions, make of one image, in one order of the classes."""
    return tuple(
        replace(found[i], classes=classes, probabilities=found[i].probabilities[order])
        for i, order in enumerate(orders)
    )


def join(answers: Sequence[Prediction], weights: Floats, combine: str) -> Prediction:
    """What H heads make of one image, as one prediction. A single head's is its own."""
    if len(answers) == 1:
        return answers[0]
    rows = np.stack([one.probabilities for one in answers])
    known = [one.familiarity for one in answers if one.familiarity is not None]
    with np.errstate(over="ignore", invalid="ignore"):
        probabilities = combined(rows, weights, combine)
    check_finite(
        probabilities[None],
        of="the sum of the heads' logits, by their weights,",
        do="use smaller --head-weights",
        images=[answers[0].path],
    )
    return replace(
        answers[0],
        probabilities=probabilities,
        familiarity=float(np.mean(known)) if len(known) == len(answers) else None,
    )


@with_own_settings
def predict(
    heads: Sequence[Head],
    paths: Sequence[Path],
    options: PredictOptions,
    source: Source | None = None,
) -> Iterator[Prediction | BadImage]:
    """What at least one head makes of each path, in order.

    With views, each head's probabilities are its mean over them, and then combined. `source` as in
    `Asked.predict`.
    """
    yield from ask(heads, finish(settle(heads, options)), len(paths)).predict(paths, source)


@with_own_settings
def settle(heads: Sequence[Head], options: PredictOptions) -> Generator[Tick, None, PredictOptions]:
    """The options with weights in place of a folder to learn them on. Yields ticks.

    The weights are those with which the heads together have the lowest mean log loss there, none
    below 0; they are rounded, so that they can be given again as they are shown.
    Raises what predicting with these options would raise.
    """
    check(heads, options)
    if not options.learn_weights:
        return options
    catalog = scan_for_choosing(Path(options.learn_weights)).relabel(heads[0].classes)
    rows, labels, bad = [], [], []
    for position, one in enumerate(members(heads, catalog.paths, options)):
        if isinstance(one, BadImage):
            bad.append(one)
        else:
            rows.append(np.stack([answer.probabilities for answer in one]))
            labels.append(catalog.labels[position])
        yield Tick(what="learning weights", done=position + 1, total=len(catalog))
    refuse(bad, do="repair or remove them")
    weights = learnt(np.stack(rows), np.array(labels), options.combine)
    text = ",".join(f"{one:.4f}" for one in weights)
    return replace(options, learn_weights="", head_weights=text)


def learnt(rows: Floats, labels: NDArray[np.int64], combine: str) -> Floats:
    """(H,) weights of the lowest mean log loss, none below 0, from probabilities (N, H, C).

    For a mean they sum to 1; for logits their sum is free, a temperature. Both losses are convex in
    the weights, so where they start does not matter: with every head counting alike, than which
    they are never worse.
    """
    from scipy.optimize import minimize

    count = rows.shape[1]
    if combine == "logits":
        start = np.ones(count)
        loss = _logits_loss(rows, labels)
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, LARGEST)] * count,
            options={"maxiter": 500, "ftol": 1e-12},
        )  # fmt: skip
        weights = np.clip(np.nan_to_num(found.x), 0.0, LARGEST)
    else:
        start = np.full(count, 1 / count)
        loss = _mean_loss(rows, labels)
        found = minimize(
            loss, start, jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * count,
            constraints={
                "type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count),
            },
            options={"maxiter": 500, "ftol": 1e-10},
        )  # fmt: skip
        weights = np.clip(np.nan_to_num(found.x), 0.0, None)
        weights = weights / weights.sum() if weights.sum() > 0 else start
    usable = weights.round(4).sum() > 0 and loss(weights)[0] <= loss(start)[0]
    return weights if usable else start


Loss = Callable[[Floats], tuple[float, Floats]]


def _mean_loss(rows: Floats, labels: NDArray[np.int64]) -> Loss:
    true = np.maximum(rows[np.arange(len(labels)), :, labels], SMALLEST)

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixed = np.maximum(true @ weights, SMALLEST)
        return float(-np.log(mixed).mean()), -(true / mixed[:, None]).mean(axis=0)

    return loss


def _logits_loss(rows: Floats, labels: NDArray[np.int64]) -> Loss:
    scores = logs(rows)
    true = scores[np.arange(len(labels)), :, labels]

    def loss(weights: Floats) -> tuple[float, Floats]:
        soft = combined(rows, weights, "logits")
        sums = np.einsum("h,nhc->nc", weights, scores)
        most = sums.max(axis=1)
        total = most + np.log(np.exp(sums - most[:, None]).sum(axis=1))
        value = float((total - true @ weights).mean())
        return value, (np.einsum("nc,nhc->nh", soft, scores) - true).mean(axis=0)

    return loss
