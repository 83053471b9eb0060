"""Test-time augmentation: the views of an image that are averaged over.

In: an `InputSpec` and a policy. Out: `View`s, and the pixels of each view of an image.
A policy is a row in `POLICIES`, or in the entry points `tlkit.policies` of an installed package.
Probabilities of views are averaged, never logits: a view with a
larger scale must not outvote the others.
Next door: dense.py (the score of a whole image).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlkit import plugins
from tlkit.backbone import InputSpec
from tlkit.data.geometry import offset, pad, scale
from tlkit.data.images import Pixels, in_channels
from tlkit.errors import OptionError, TlkitError, briefly, pick, raise_machine_error
from tlkit.options import PredictOptions
from tlkit.plugins import exits_as_errors
from tlkit.rows import Rows, failed


@dataclass(frozen=True, kw_only=True)
class View:
    """One crop of an image that was scaled, or all of it."""

    shorter_px: int
    """Shorter side of the scaled image; where the weights' crop mode scales otherwise, what stands
    for its `resize_px`."""
    down: float = 0.5
    """Where the square lies in the room there is: 0 at the top, 1 at the bottom."""
    right: float = 0.5
    """0 at the left, 1 at the right."""
    mirrored: bool = False
    whole: bool = False
    """The whole scaled image, for dense evaluation; it has no `down` and no `right`."""
    weight: float = 1.0
    """What it counts in the mean."""

    def fits(self, spec: InputSpec) -> bool:
        """Whether it can be cut from any image, and counts."""
        inside = 0 <= self.down <= 1 and 0 <= self.right <= 1
        large = self.shorter_px >= min(spec.crop_px, spec.resize_px)
        return large and inside and 0 < self.weight < math.inf


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A row of the table."""

    about: str
    views: Callable[[InputSpec, PredictOptions], tuple[View, ...]]
    uses: frozenset[str] = frozenset()
    """Which of `scales`, `grid` and `mirror` it takes."""


def views_of(options: PredictOptions, spec: InputSpec) -> tuple[View, ...]:
    """The views of the chosen policy, at least one.

    Raises `UnknownName`, and `OptionError` for scales below the network's input and for numbers
    given to a policy that has none.
    """
    policy = pick(POLICIES, options.tta, "test-time policy")
    for name in ("scales", "grid", "mirror"):
        if name not in policy.uses:
            takers = [f"--tta {one}" for one, row in POLICIES.own.items() if name in row.uses]
            options.refuse([name], f"{' or '.join(takers)}, which take it")
    if options.tta in POLICIES.own:
        return policy.views(spec, options)
    return held_views(policy, options.tta, spec, options)


def held_views(
    policy: Policy, name: str, spec: InputSpec, options: PredictOptions
) -> tuple[View, ...]:
    """The views of an installed policy. Raises `PluginError` for what cannot be cut."""
    try:
        with exits_as_errors():
            views = tuple(policy.views(spec, options))
    except TlkitError:
        raise
    except Exception as error:  # a stranger's code
        raise_machine_error(error)
        raise failed("test-time policy", name, briefly(error), "views") from error
    wrong = [one for one in views if not (isinstance(one, View) and one.fits(spec))]
    if wrong or not views:
        raise failed(
            "test-time policy", name, str(wrong[0]) if wrong else "no view",
            f"at least one View, of a scale from {spec.crop_px} px, placed from 0 to 1, with a "
            "weight above 0",
        )  # fmt: skip
    return views


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The views of one image, those that are the same square of it once."""

    pixels: tuple[Pixels, ...]
    """Of each different view: (height, width, channels) of the input, or of a whole image."""
    whole: tuple[bool, ...]
    """Which of them are whole images."""
    of: tuple[int, ...]
    """(V,) where each view is in `pixels`."""


def seen(image: Pixels, views: Sequence[View], spec: InputSpec) -> Seen:
    """(H, W, 3) -> its views. Each scale is made once.

    Where the shorter side of the scaled image is that of the square, a grid has one row only.
    """
    scaled = {
        px: in_channels(scale(spec, image, px), spec.channels)
        for px in {view.shorter_px for view in views}
    }
    places = [_place(scaled[view.shorter_px], view, spec) for view in views]
    different: dict[_Place, int] = {}
    of = tuple(different.setdefault(one, len(different)) for one in places)
    # Mirrored before it is cut, so that a picture and its mirror image have the same set of views
    # also where the room around the square is an odd number of pixels; and once, as a copy: pixels
    # that are read backwards are copied twenty times slower, for every square anew.
    mirrored = {
        px: pad(spec, np.ascontiguousarray(scaled[px][:, ::-1]))
        for px in {one.shorter_px for one in different if one.mirrored}
    }
    scaled = {px: pad(spec, one) for px, one in scaled.items()}
    return Seen(
        pixels=tuple(
            _cut((mirrored if one.mirrored else scaled)[one.shorter_px], one) for one in different
        ),
        whole=tuple(one.whole for one in different),
        of=of,
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Which pixels a view has."""

    shorter_px: int
    mirrored: bool
    whole: bool
    top: int
    left: int
    height: int
    width: int


def _place(image: Pixels, view: View, spec: InputSpec) -> _Place:
    # What is smaller than a crop will be padded.
    height, width = (max(pair) for pair in zip(image.shape[:2], spec.size, strict=True))
    # All of it where the view is the whole image: then there is no room around it.
    high, wide = (height, width) if view.whole else spec.size
    return _Place(
        shorter_px=view.shorter_px,
        mirrored=view.mirrored,
        whole=view.whole,
        top=offset(spec, height - high, view.down),
        left=offset(spec, width - wide, view.right),
        height=high,
        width=wide,
    )


def _cut(image: Pixels, place: _Place) -> Pixels:
    return image[place.top : place.top + place.height, place.left : place.left + place.width]


def _plain(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    return (View(shorter_px=spec.resize_px),)


def _five(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    corners = [(down, right) for down in (0.0, 1.0) for right in (0.0, 1.0)]
    return tuple(
        View(shorter_px=spec.resize_px, down=down, right=right)
        for down, right in [(0.5, 0.5), *corners]
    )


def _crops(spec: InputSpec, options: PredictOptions, grid: int) -> tuple[View, ...]:
    """A regular grid of squares at every scale."""
    places = [i / (grid - 1) for i in range(grid)] if grid > 1 else [0.5]
    return tuple(
        View(shorter_px=px, down=down, right=right)
        for px in _scales(options.scales, spec)
        for down in places
        for right in places
    )


def _multi(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    views = _crops(spec, options, options.grid)
    return both_ways(views) if options.mirror else views


def _dense(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    views = tuple(View(shorter_px=px, whole=True) for px in _scales(options.scales, spec))
    return both_ways(views) if options.mirror else views


def _dense_and_crops(spec: InputSpec, options: PredictOptions) -> tuple[View, ...]:
    """Both, each method as a whole with the same weight, however many views it has."""
    return tuple(
        replace(view, weight=1 / len(views))
        for views in (_dense(spec, options), _multi(spec, options))
        for view in views
    )


def both_ways(views: tuple[View, ...]) -> tuple[View, ...]:
    """Each view and its mirror image."""
    return tuple(one for view in views for one in (view, replace(view, mirrored=not view.mirrored)))


def _scales(text: str, spec: InputSpec) -> list[int]:
    """Pixels from "256,384,512" or auto, each at least the network's input."""
    usual = [round(spec.crop_px * sevenths / 7) for sevenths in (8, 12, 16)]
    if text == "auto":
        return list(dict.fromkeys(usual))
    parts = [one.strip() for one in text.split(",")]
    if not all(one.isascii() and one.isdecimal() for one in parts):
        wanted = "whole numbers of pixels with commas between"
    elif min(map(int, parts)) < spec.crop_px or max(map(int, parts)) > 4096:
        wanted = f"from {spec.crop_px}, the side of the network's input, to 4096"
    else:
        return list(dict.fromkeys(map(int, parts)))
    raise OptionError(
        "the test-time scales cannot be used",
        found=f"--scales {text}",
        expected=wanted,
        do=f"for this backbone: --scales {','.join(map(str, usual))}, which is auto",
    )


OWN: Mapping[str, Policy] = {
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
        about="--scales x --grid x --grid crops, with --mirror each also mirrored",
        views=_multi,
        uses=frozenset({"scales", "grid", "mirror"}),
    ),
    "vgg150": Policy(
        about="multi with a grid of 5, mirrored: 150 crops, the multi-crop evaluation of the VGG "
        "paper (arXiv 1409.1556, 3.2)",
        views=lambda spec, options: both_ways(_crops(spec, options, 5)),
        uses=frozenset({"scales"}),
    ),
    "dense": Policy(
        about="the whole image at --scales, with --mirror also mirrored: the network slides over "
        "it and its scores are averaged, the dense evaluation of the VGG paper",
        views=_dense,
        uses=frozenset({"scales", "mirror"}),
    ),
    "dense+crops": Policy(
        about="dense and multi, the means of the two averaged",
        views=_dense_and_crops,
        uses=frozenset({"scales", "grid", "mirror"}),
    ),
}

POLICIES = Rows(Policy, plugins.POLICIES, OWN)
