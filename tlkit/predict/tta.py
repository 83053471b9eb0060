"""Test-time augmentation: the views of an image that are averaged over.

In: an `InputSpec` and a policy. Out: `View`s, and (V, px, px, 3) pixels of an image.
A policy is a row in `POLICIES`. Probabilities of views are averaged, never logits: a view with a
larger scale must not outvote the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlkit.backbone import InputSpec
from tlkit.data.images import Pixels, in_channels, resize
from tlkit.errors import OptionError, pick
from tlkit.options import PredictOptions


@dataclass(frozen=True, kw_only=True)
class View:
    """One square of an image that was scaled."""

    shorter_px: int
    """Shorter side of the scaled image."""
    down: float = 0.5
    """Where the square lies in the room there is: 0 at the top, 1 at the bottom."""
    right: float = 0.5
    """0 at the left, 1 at the right."""
    mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A row of the table."""

    about: str
    views: Callable[[InputSpec, PredictOptions], tuple[View, ...]]


def views_of(options: PredictOptions, spec: InputSpec) -> tuple[View, ...]:
    """The views of the chosen policy, at least one.

    Raises `UnknownName`, and `OptionError` for scales below the network's input and for numbers
    given to a policy that has none.
    """
    policy = pick(POLICIES, options.tta, "test-time policy")
    if options.tta != "multi":
        options.refuse(["scales", "grid", "mirror"], "--tta multi, whose numbers these are")
    return policy.views(spec, options)


def seen(image: Pixels, views: Sequence[View], spec: InputSpec) -> Pixels:
    """(H, W, 3) -> (V, px, px, channels): each scale is made once, each view cut from it."""
    scaled = {
        px: resize(image, px, spec.interpolation) for px in {view.shorter_px for view in views}
    }
    squares = np.stack([_square(scaled[view.shorter_px], view, spec.crop_px) for view in views])
    return in_channels(squares, spec.channels)


def _square(image: Pixels, view: View, px: int) -> Pixels:
    # Mirrored before it is cut, so that a picture and its mirror image have the same set of views
    # also where the room around the square is an odd number of pixels.
    image = image[:, ::-1] if view.mirrored else image
    top = int((image.shape[0] - px) * view.down)
    left = int((image.shape[1] - px) * view.right)
    return image[top : top + px, left : left + px]


def _plain(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    return (View(shorter_px=spec.resize_px),)


def _five(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    corners = [(down, right) for down in (0.0, 1.0) for right in (0.0, 1.0)]
    return tuple(
        View(shorter_px=spec.resize_px, down=down, right=right)
        for down, right in [(0.5, 0.5), *corners]
    )


def _grid(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    places = [i / (options.grid - 1) for i in range(options.grid)] if options.grid > 1 else [0.5]
    views = tuple(
        View(shorter_px=px, down=down, right=right)
        for px in _scales(options.scales, spec)
        for down in places
        for right in places
    )
    return both_ways(views) if options.mirror else views


def both_ways(views: tuple[View, ...]) -> tuple[View, ...]:
    """Each view and its mirror image."""
    return tuple(one for view in views for one in (view, replace(view, mirrored=not view.mirrored)))


def _scales(text: str, spec: InputSpec) -> list[int]:
    """Pixels from "256,384,512", each at least the network's input."""
    parts = [one.strip() for one in text.split(",")]
    if not all(one.isascii() and one.isdecimal() for one in parts):
        found, wanted = f"--scales {text}", "whole numbers of pixels with commas between"
    elif min(map(int, parts)) < spec.crop_px or max(map(int, parts)) > 4096:
        found = f"--scales {text}"
        wanted = f"from {spec.crop_px}, the side of the network's input, to 4096"
    else:
        return list(dict.fromkeys(map(int, parts)))
    raise OptionError(
        "the scales of --tta multi cannot be used",
        found=found,
        expected=wanted,
        do=f"for this backbone: --scales {spec.crop_px},{spec.crop_px * 3 // 2},{spec.crop_px * 2}",
    )


POLICIES: Mapping[str, Policy] = {
    "none": Policy(about="the plain view", views=_plain),
    "mirror": Policy(
        about="plain and mirrored; what --tta alone means",
        views=lambda spec, options: both_ways(_plain(spec, options)),
    ),
    "five": Policy(about="centre and four corners", views=_five),
    "ten": Policy(
        about="five and their mirrors", views=lambda spec, options: both_ways(_five(spec, options))
    ),
    "multi": Policy(
        about="--scales x --grid x --grid crops, with --mirror each also mirrored: "
        "256,384,512 and 5 are the 150 views of the VGG paper",
        views=_grid,
    ),
}
