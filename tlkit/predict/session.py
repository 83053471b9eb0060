"""Session: heads that are made ready once, and asked for as long as one likes.

In: loaded heads, options. Out: for images in memory, many at once, the `Prediction`s that their
files would get.
Its owner reads images in as many threads as it likes, and asks in one thread alone.
Next door: ensemble.py (the images of a list of paths), run.py (one group of heads).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.artifact import Head
from tlkit.data.batches import even_parts
from tlkit.data.geometry import detail
from tlkit.data.images import Unreadable, decode
from tlkit.errors import OptionError, PluginError, TlkitError, pick
from tlkit.options import PredictOptions
from tlkit.predict.ensemble import alike, check, join, match, weights_of
from tlkit.predict.reject import Rule, rule_of
from tlkit.predict.run import Answer, Prediction, Ready, prepare
from tlkit.predict.shared import groups
from tlkit.predict.tta import POLICIES, Seen, seen, views_of
from tlkit.settings import with_own_settings

IMAGES = 10_000
"""For how many images an engine is chosen: nobody knows how many will come."""

MOST_WHOLE = 1 << 22
"""Pixels of a whole image: a long and narrow one, scaled for its shorter side, has far more."""

Look = tuple[Seen, ...]
"""What each group of heads sees of one image."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Heads that were placed, under one policy."""

    heads: tuple[Head, ...]
    options: PredictOptions
    groups: tuple[tuple[int, ...], ...]
    ready: tuple[Ready, ...]
    """One of each group."""
    rule: Rule
    orders: tuple[NDArray[np.int64], ...]
    weights: NDArray[np.float64]

    @property
    def views(self) -> int:
        """Of one image, for the group that has most."""
        return max(len(one.views) for one in self.ready)

    def look(self, data: bytes) -> Look:
        """What is seen of the image in a file's bytes. Raises `Unreadable`."""
        return tuple(_look(one, data) for one in self.ready)

    @with_own_settings
    def started(self, like: Session | None = None) -> Session:
        """With engines; for crops with those of another session of the same heads.

        Raises `OptionError`.
        """
        others = [None] * len(self.ready) if like is None else [one.crops for one in like.ready]
        started = tuple(
            one.started(self.options.engine, IMAGES, crops_by=crops)
            for one, crops in zip(self.ready, others, strict=True)
        )
        return replace(self, ready=started)

    @with_own_settings
    def ask(self, images: Sequence[tuple[Path, Look]]) -> list[Prediction]:
        """A prediction for each, once started. As many go through the network together as in
        `predict`.
        """
        found: list[Prediction] = []
        for size in even_parts(len(images), max(1, self.options.batch // self.views)):
            some = images[len(found) : len(found) + size]
            paths = [path for path, _ in some]
            rows = [
                ready.submit([look[number] for _, look in some], paths)
                for number, ready in enumerate(self.ready)
            ]
            answers = [one() for one in rows]
            found += [
                self._joined(path, [answer[i] for answer in answers])
                for i, (path, _) in enumerate(some)
            ]
        return found

    def _joined(self, path: Path, answers: Sequence[Sequence[Answer]]) -> Prediction:
        each = {
            i: answer.of(self.heads[i], path)
            for group, row in zip(self.groups, answers, strict=True)
            for i, answer in zip(group, row, strict=True)
        }
        rows = alike(each, self.heads[0].classes, self.orders)
        one = join(rows, self.weights, self.options.combine)
        return replace(one, unsure=not self.rule.believes(one))


def _look(ready: Ready, data: bytes) -> Seen:
    fine = detail(ready.spec, max(view.shorter_px for view in ready.views))
    image = decode(data, at_least_px=fine)
    whole = max((view.shorter_px for view in ready.views if view.whole), default=0)
    height, width = image.shape[:2]
    if max(height, width) * whole**2 > MOST_WHOLE * min(height, width):
        raise Unreadable(
            f"{width} x {height} pixels are too narrow to be looked at as a whole, "
            f"{whole} pixels high or wide"
        )
    return seen(image, ready.views, ready.spec)


@with_own_settings
def sessions(heads: Sequence[Head], options: PredictOptions) -> dict[str, Session]:
    """For each policy that the heads can be asked under, how; the one in `options` is the first.

    `scales`, `grid` and `mirror` are for the policies that take them. Raises what predicting with
    these options would raise; a policy that was not named and does not go with the heads is left
    out.
    """
    asked = _under(options.tta, heads, options)
    check(heads, asked)
    first = _session(heads, asked)
    found = {options.tta: first}
    for name in POLICIES:
        if name in found:
            continue
        # A package's that is broken, or refuses these heads, stops nothing else.
        with contextlib.suppress(PluginError if name in POLICIES.own else TlkitError):
            own = _under(name, heads, options)
            with contextlib.suppress(OptionError):
                ready = tuple(one.under(own) for one in first.ready)
                found[name] = replace(first, options=own, ready=ready)
    return found


def _under(name: str, heads: Sequence[Head], options: PredictOptions) -> PredictOptions:
    """The options for a policy, with those of `scales`, `grid` and `mirror` that it takes."""
    plain = PredictOptions()
    idle = {"scales", "grid", "mirror"} - pick(POLICIES, name, "test-time policy").uses
    own = replace(options, tta=name, **{one: getattr(plain, one) for one in idle})
    for head in heads:
        views_of(own, head.model.spec)
    return own


def _session(heads: Sequence[Head], options: PredictOptions) -> Session:
    """Place the heads."""
    shared = groups(heads)
    return Session(
        heads=tuple(heads),
        options=options,
        groups=tuple(tuple(group) for group in shared),
        ready=tuple(prepare([heads[i] for i in group], options) for group in shared),
        rule=rule_of(heads, options),
        orders=tuple(match(heads)),
        weights=weights_of(heads, options),
    )
