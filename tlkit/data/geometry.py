"""Geometry: how an image is scaled, padded and cropped for a set of weights.

In: an `InputSpec` and an image. Out: the crop that the library of the weights makes of that image.
The rounding is torchvision's and timm's: the longer side is rounded down, the corner of a crop to
the nearest pixel. So the crop lies where theirs does, to the pixel. Its values differ from what
they make of a Pillow image by at most 2 levels, as long as rows are scaled before columns: torch,
which resamples here, has coarser weights than Pillow, and needs a third to a half of the time.
(Pillow 13 scales the columns of some images first, of narrow ones and of those that are squashed;
sharp edges then differ by more. Other versions of Pillow do not.)
Heads of tlkit 0.1.0 were fitted on images that were rounded otherwise; `preprocessing` 1 is that.
Next door: images.py (decoding, resampling), transforms.py (augmentation).
"""

from __future__ import annotations

import numpy as np

from tlkit.backbone import InputSpec
from tlkit.data.images import Detail, Faithful, Pixels, long_side, resize_to


def detail(spec: InputSpec, px: int = 0) -> Detail:
    """Return how finely an image must be decoded that is scaled to `px`, or to `resize_px`."""
    px = px or spec.resize_px
    if spec.preprocessing == 1:
        return px
    bounded = spec.crop_mode in ("squash", "border")
    return Faithful(px=max(_target(spec, px)), any_shape=bounded)


def scaled_size(spec: InputSpec, height: int, width: int, px: int) -> tuple[int, int]:
    """Return the height and width that an image is scaled to, with `px` for `resize_px`."""
    if spec.preprocessing == 1:
        scale = px / min(height, width)
        return max(px, round(height * scale)), max(px, round(width * scale))
    high, wide = _target(spec, px)
    if spec.crop_mode == "squash":
        return high, wide
    if spec.crop_mode == "border":
        return _divided(height, width, max(height / high, width / wide))
    if high != wide:
        return _divided(height, width, min(height / high, width / wide))
    long_px = long_side(height, width, px)
    return (long_px, px) if width <= height else (px, long_px)


def scale(spec: InputSpec, image: Pixels, px: int = 0) -> Pixels:
    """Scale (H, W, 3) as the weights expect it, with `px` for `resize_px` unless it is 0."""
    height, width = image.shape[:2]
    return resize_to(
        image, scaled_size(spec, height, width, px or spec.resize_px), spec.interpolation
    )


def pad(spec: InputSpec, image: Pixels) -> Pixels:
    """Surround an image that is smaller than the network's input, in the middle of what lacks."""
    lacks = [max(0, wanted - is_) for wanted, is_ in zip(spec.size, image.shape[:2], strict=True)]
    if not any(lacks):
        return image
    fill = [round(255 * mean) if spec.crop_mode == "border" else 0 for mean in spec.mean]
    height, width = image.shape[:2]
    top, left = lacks[0] // 2, lacks[1] // 2
    shape = (height + lacks[0], width + lacks[1], image.shape[2])
    padded: Pixels = np.full(shape, fill, np.uint8)
    padded[top : top + height, left : left + width] = image
    return padded


def offset(spec: InputSpec, room: int, share: float = 0.5) -> int:
    """Return where a crop begins that has so many pixels to spare; `share` 0.5 is the middle."""
    return int(room * share) if spec.preprocessing == 1 else round(room * share)


def crop(spec: InputSpec, image: Pixels) -> Pixels:
    """Cut the network's input from the middle of an image that was scaled."""
    padded = pad(spec, image)
    height, width = spec.size
    top = offset(spec, padded.shape[0] - height)
    left = offset(spec, padded.shape[1] - width)
    return padded[top : top + height, left : left + width]


def cover(spec: InputSpec, image: Pixels, px: int) -> Pixels:
    """Scale (H, W, 3) in its own shape until crops of the network's input can be taken from it.

    `px` is the height that such a crop has at most.
    """
    high, wide = spec.size
    height, width = image.shape[:2]
    if high == wide:
        long_px = long_side(height, width, px)
        size = (long_px, px) if width <= height else (px, long_px)
        return resize_to(image, size, spec.interpolation)
    ratio = min(height / px, width / (px * wide / high))
    lower = (px, -(-px * wide // high))
    size = tuple(map(max, _divided(height, width, ratio), lower))  # type: ignore[assignment]
    return resize_to(image, size, spec.interpolation)


def _target(spec: InputSpec, px: int) -> tuple[int, int]:
    """Height and width of `resize_size`, with `px` in place of its height."""
    high, wide = spec.resize_size
    return px, (wide if px == high else max(1, round(px * wide / high)))


def _divided(height: int, width: int, ratio: float) -> tuple[int, int]:
    return max(1, round(height / ratio)), max(1, round(width / ratio))
