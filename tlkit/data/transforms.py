"""Transforms: what the network sees of an image, when learning.

In: (H, W, 3) pixels and which image and view this is. Out: (height, width, channels), all numbers
the `InputSpec`'s. Augmentations work in colour; for a network that wants grey, their result is made
so.
A preset is a row in `PRESETS`, or of a package in the entry points `tlkit.augmentations`.
This is the only module that knows albumentations, which it imports only where a pipeline needs it.

Each view of an image draws from a random stream of its own, a function of (seed, image, view) and
nothing else. So it does not matter how many threads there are or in which order they come, two
epochs never repeat each other, and a view can be computed again.
(albumentations by itself gives every forked worker the same stream, and every epoch too.)
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tlkit import plugins
from tlkit.backbone import InputSpec
from tlkit.data.geometry import cover, crop, scale
from tlkit.data.images import Pixels, in_channels
from tlkit.errors import OptionError, PluginError, TlkitError, briefly, pick, raise_machine_error
from tlkit.plugins import exits_as_errors
from tlkit.rows import Rows, failed

Look = Callable[[Pixels, int, int], Pixels]
"""(image, image's number, view's number) -> (height, width, channels)."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named augmentation."""

    about: str
    make: Callable[[InputSpec, int, str], Look]
    """(input, seed, jitter) -> look."""
    distinct: int | None
    """How many different views it has, the first of them the plain one; None where every view is
    new."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A preset or a user's pipeline, made for one input."""

    name: str
    look: Look
    distinct: int | None
    source: str
    """All that the views depend on, besides the image, its number and theirs."""

    def identity(self, number: int, view: int) -> str:
        """What tells a view of an image from its other views; equal where the views are."""
        if self.distinct is None:
            return f"{self.source}/{number}/{view}"
        return f"{self.source}/{view % self.distinct}" if view % self.distinct else "plain"


def plain(spec: InputSpec, image: Pixels) -> Pixels:
    """The view of evaluation: scaled and cropped as the weights expect it (geometry.py)."""
    return in_channels(crop(spec, scale(spec, image)), spec.channels)


def augmentation(choice: str, spec: InputSpec, seed: int, *, jitter: str = "auto") -> Augmentation:
    """What `--augment` means: a preset's name, or a YAML or JSON file of albumentations.

    `jitter` are the sizes of the preset vgg. Raises `OptionError`, `UnknownName`.
    """
    if choice not in PRESETS and Path(choice).suffix.lower() in (".yaml", ".yml", ".json"):
        path = Path(choice)
        look = _from_file(path, spec, seed)
        text = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        source = f"{version('albumentations')}/{text}/{seed}"
        return Augmentation(name="file", look=look, distinct=None, source=source)
    preset = pick(PRESETS, choice, "augmentation preset", also=", or a .yaml or .json file")
    found = PRESETS.found(choice)
    if found is not None:
        look = held_look(preset, choice, spec, seed, jitter)
        source = f"{found.qualified}/{found.version}/{jitter}/{seed}"
        return Augmentation(name=choice, look=look, distinct=preset.distinct, source=source)
    return Augmentation(
        name=choice,
        look=preset.make(spec, seed, jitter),
        distinct=preset.distinct,
        source=choice
        if preset.distinct
        else f"{version('albumentations')}/{choice}/{jitter}/{seed}",
    )


def held_look(preset: Preset, name: str, spec: InputSpec, seed: int, jitter: str) -> Look:
    """The look of an installed preset. It raises `PluginError` for what the network cannot take."""
    wanted = (*spec.size, spec.channels)

    def refused(error: Exception) -> PluginError:
        return failed("augmentation preset", name, briefly(error), f"{wanted} uint8")

    try:
        with exits_as_errors():
            made = preset.make(spec, seed, jitter)
    except TlkitError:
        raise
    except Exception as error:  # a stranger's code
        raise_machine_error(error)
        raise refused(error) from error

    def look(image: Pixels, number: int, view: int) -> Pixels:
        try:
            with exits_as_errors():
                seen = made(image, number, view)
        except Exception as error:
            raise_machine_error(error)
            raise refused(error) from error
        if not isinstance(seen, np.ndarray) or seen.dtype != np.uint8 or seen.shape != wanted:
            raise refused(TypeError(f"{getattr(seen, 'dtype', '')} {getattr(seen, 'shape', seen)}"))
        return seen

    return look


def _none(spec: InputSpec, seed: int, jitter: str) -> Look:
    return lambda image, number, view: plain(spec, image)


def _mirror(spec: InputSpec, seed: int, jitter: str) -> Look:
    """Every second view mirrored: two views hold all there is, so nothing is left to chance."""

    def look(image: Pixels, number: int, view: int) -> Pixels:
        seen = plain(spec, image)
        return seen[:, ::-1] if view % 2 else seen

    return look


def _composed(
    steps: Callable[[Any, InputSpec], list[Any]],
) -> Callable[[InputSpec, int, str], Look]:
    """A preset from a function that lists albumentations' transforms."""

    def make(spec: InputSpec, seed: int, jitter: str) -> Look:
        albumentations = _albumentations()
        apply = _seeded(albumentations.Compose(steps(albumentations, spec)), seed)

        def look(image: Pixels, number: int, view: int) -> Pixels:
            # Shrunk once by area: the linear interpolation of random crops would alias.
            if min(image.shape[:2]) > 2 * max(spec.size):
                image = cover(spec, image, 2 * spec.crop_px)
            return in_channels(apply(image, number, view), spec.channels)

        return look

    return make


def _crop(library: Any, spec: InputSpec, least: float) -> Any:
    return library.RandomResizedCrop(
        size=spec.size,
        scale=(least, 1.0),
        ratio=(3 / 4, 4 / 3),
        interpolation=cv2.INTER_LINEAR,
    )


def _light(library: Any, spec: InputSpec) -> list[Any]:
    return [_crop(library, spec, 0.6), library.HorizontalFlip(p=0.5)]


def _standard(library: Any, spec: InputSpec) -> list[Any]:
    return [
        _crop(library, spec, 0.35),
        library.HorizontalFlip(p=0.5),
        library.ColorJitter(
            brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02)
        ),
    ]


def _strong(library: Any, spec: InputSpec) -> list[Any]:
    return [
        library.Affine(rotate=(-15, 15), shear=(-8, 8), border_mode=cv2.BORDER_REFLECT_101, p=0.5),
        _crop(library, spec, 0.2),
        library.HorizontalFlip(p=0.5),
        library.ColorJitter(
            brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=(-0.05, 0.05)
        ),
        library.ToGray(p=0.05),
        library.GaussianBlur(p=0.1),
        library.CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=(0.1, 0.35),
            hole_width_range=(0.1, 0.35),
            p=0.25,
        ),
    ]


def _upright(library: Any, spec: InputSpec) -> list[Any]:
    return [
        library.Affine(
            rotate=(-10, 10),
            scale=(0.9, 1.1),
            translate_percent=(-0.06, 0.06),
            shear=(-6, 6),
            border_mode=cv2.BORDER_REPLICATE,
            p=0.9,
        ),
        _crop(library, spec, 0.8),
    ]


def _aerial(library: Any, spec: InputSpec) -> list[Any]:
    return [_crop(library, spec, 0.5), library.SquareSymmetry(p=1.0)]


def _vgg(spec: InputSpec, seed: int, jitter: str) -> Look:
    """Scale jitter as in the VGG paper (arXiv 1409.1556, 3.1): S from [Smin, Smax], then a crop."""
    least, most = _sizes(jitter, spec)
    library = _albumentations()
    steps = [
        library.RandomCrop(*spec.size),
        library.HorizontalFlip(p=0.5),
        library.RGBShift(r_shift_limit=20, g_shift_limit=20, b_shift_limit=20, p=0.5),
    ]
    apply = _seeded(library.Compose(steps), seed)

    def look(image: Pixels, number: int, view: int) -> Pixels:
        side = least + _drawn(f"{seed}/{number}/{view}/side") % (most - least + 1)
        scaled = cover(spec, image, side)
        return in_channels(apply(scaled, number, view), spec.channels)

    return look


def _sizes(jitter: str, spec: InputSpec) -> tuple[int, int]:
    """Pixels from "256,512". Raises `OptionError`."""
    if jitter == "auto":
        return round(spec.crop_px * 8 / 7), round(spec.crop_px * 16 / 7)
    parts = [one.strip() for one in jitter.split(",")]
    if len(parts) == 2 and all(one.isascii() and one.isdecimal() for one in parts):
        least, most = map(int, parts)
        if spec.crop_px <= least <= most <= 4096:
            return least, most
    raise OptionError(
        "the sizes of the scale jitter cannot be used",
        found=f"--jitter {jitter}",
        expected=f"MIN,MAX in pixels, from {spec.crop_px}, the side of the network's input, "
        "to 4096",
        do=f"for this backbone: --jitter {round(spec.crop_px * 8 / 7)},"
        f"{round(spec.crop_px * 16 / 7)}",
    )


def _from_file(path: Path, spec: InputSpec, seed: int) -> Look:
    """A user's pipeline. What it gives is brought to the network's size by the plain view."""
    albumentations = _albumentations()
    kind = "json" if path.suffix.lower() == ".json" else "yaml"
    try:
        pipeline = albumentations.load(path, data_format=kind)
        if not isinstance(pipeline, albumentations.BasicTransform | albumentations.BaseCompose):
            raise TypeError(f"it holds a {type(pipeline).__name__}")
    except Exception as error:  # a user's file: parsers and constructors raise anything
        raise_machine_error(error)
        raise OptionError(
            f"the augmentation file {path} cannot be used",
            found=briefly(error),
            expected="a pipeline written by albumentations.save(pipeline, path, data_format="
            f"'{kind}')",
            do="write it again, or use a preset: " + ", ".join(PRESETS),
        ) from error
    apply = _seeded(albumentations.Compose([pipeline]), seed)

    def look(image: Pixels, number: int, view: int) -> Pixels:
        try:
            seen = apply(image, number, view)
        except Exception as error:  # a user's pipeline on a user's image: anything
            raise_machine_error(error)
            height, width = image.shape[:2]
            raise OptionError(
                f"the augmentation file {path} fails on an image",
                found=briefly(error),
                expected=f"a pipeline for any size; this image was read as {width} x {height}"
                " (a large JPEG is read at a half, a quarter or an eighth of its size)",
                do="let the pipeline resize before it crops, or use a preset",
            ) from error
        if not isinstance(seen, np.ndarray) or seen.dtype != np.uint8 or seen.shape[2:] != (3,):
            raise OptionError(
                f"the augmentation file {path} does not give an image",
                found=f"{getattr(seen, 'dtype', type(seen).__name__)} {getattr(seen, 'shape', '')}",
                expected="(H, W, 3) uint8: tlkit normalises by the backbone's own mean and std",
                do="take Normalize and ToTensorV2 out of the pipeline",
            )
        if seen.shape[:2] == spec.size:
            return in_channels(seen, spec.channels)
        return plain(spec, seen)

    return look


def _seeded(pipeline: Any, seed: int) -> Look:
    """A pipeline that draws, for each image and view, from a stream of its own."""
    own = threading.local()  # a pipeline keeps its random state, so each thread has a copy

    def apply(image: Pixels, number: int, view: int) -> Pixels:
        if not hasattr(own, "pipeline"):
            own.pipeline = copy.deepcopy(pipeline)
        own.pipeline.set_random_seed(_drawn(f"{seed}/{number}/{view}"))
        seen: Pixels = own.pipeline(image=image)["image"]
        return seen

    return apply


def _drawn(key: str) -> int:
    """32 random bits that are a function of the key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little")


def _albumentations() -> Any:
    """The library, kept from asking the network for a newer version of itself at import."""
    import os

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


OWN: Mapping[str, Preset] = {
    "none": Preset(about="the plain view only", make=_none, distinct=1),
    "mirror": Preset(about="plain and mirrored in turn", make=_mirror, distinct=2),
    "light": Preset(
        about="random crops of 60 to 100 % of the area, mirrored",
        make=_composed(_light),
        distinct=None,
    ),
    "standard": Preset(
        about="random crops of 35 to 100 %, mirrored, mild colour changes",
        make=_composed(_standard),
        distinct=None,
    ),
    "strong": Preset(
        about="rotation, crops of 20 to 100 %, colour, grey, blur, holes",
        make=_composed(_strong),
        distinct=None,
    ),
    "upright": Preset(
        about="small shifts, tilts and scales, never mirrored: for digits, text, signs",
        make=_composed(_upright),
        distinct=None,
    ),
    "vgg": Preset(
        about="the shorter side drawn from --jitter, a crop, mirrored, colours shifted: "
        "as in the VGG paper",
        make=_vgg,
        distinct=None,
    ),
    "aerial": Preset(
        about="crops in all eight orientations: for pictures without an up",
        make=_composed(_aerial),
        distinct=None,
    ),
}

PRESETS = Rows(Preset, plugins.AUGMENTATIONS, OWN)
