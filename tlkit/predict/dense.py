"""Dense: the score of an image that is larger than the network's input.

In: a model, the scores of its head on one vector. Out: logits of a whole image.
As in the VGG paper (arXiv 1409.1556, 3.2, after Sermanet et al. 2013, arXiv 1312.6229): the layers
behind the features become convolutions, and the map of class scores is averaged over its positions.
It is done in one of two ways, which a `Window` or its absence tells:

    the neck flattens the map      every window of the crop's map size is flattened and scored: the
    (VGG)                          first linear layer as a convolution of that size, the rest as 1x1
    the neck averages the map,     the plain forward pass: the average of linear scores is the score
    all behind it is affine        of the average, and 1x1 convolutions are all there is to make
    (ResNet with a linear head)

Where neither holds, the two differ or there is no map, and that is refused before an image is read.
Not here: scales and mirrors (tta.py), averaging over them (run.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit.errors import OptionError, raise_machine_error
from tlkit.model.assemble import Assembled
from tlkit.model.heads import Scale

AFFINE = (nn.Linear, Scale, nn.Identity, nn.Dropout, nn.BatchNorm1d, nn.Flatten)
"""In eval mode each of these maps the mean of vectors to the mean of what it maps them to."""

MOST = 1 << 24
"""Numbers that the windows of one step may hold, if there is more than a row of them: 64 MiB."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The size that the features' map has for an image of the network's own input size."""

    height: int
    width: int

    def slide(self, found: Tensor) -> Iterator[Tensor]:
        """(B, F, h, w) -> every window of the map, flattened as the neck does: parts of (B, P, D).

        The parts hold the P of some rows each, so that memory does not grow with the map.
        """
        rows = found.shape[2] - self.height + 1
        columns = found.shape[3] - self.width + 1
        numbers = found.shape[0] * columns * found.shape[1] * self.height * self.width
        step = max(1, MOST // numbers)
        for top in range(0, rows, step):
            strip = found[:, :, top : min(top + step, rows) + self.height - 1]
            yield nn.functional.unfold(strip, (self.height, self.width)).mT


def window_of(model: Assembled, name: str) -> Window | None:
    """How the model is evaluated densely: by windows, or, for None, by its plain forward pass.

    The neck is judged by what it does to noise, so that a plugin need not say. The model must be
    in eval mode. Raises `OptionError` where there is no dense evaluation; `name` is the head's.
    """
    with torch.inference_mode():
        found = features_of_black(model, *model.spec.size)
        if found.ndim != 4:
            raise _refused(
                name, f"tokens {tuple(found.shape[1:])}, as a transformer makes them",
                "a backbone whose features are a map, which can be larger for a larger image",
            )  # fmt: skip
        _must_grow(model, found, name)
        channels, height, width = found.shape[1:]
        noise = _noise((2, channels, height, width), found.device)
        if _alike(_vectors(model.neck, noise), noise.flatten(1)):
            return Window(height=height, width=width)
        larger = (2, channels, height + 2, width + 3)
        if not (takes_the_mean(model.neck, found) and takes_the_mean(model.neck, found, larger)):
            raise _refused(
                name, f"a pooling ({_words(model.neck)}) that is neither",
                "one that flattens the map, or takes its mean",
            )  # fmt: skip
    bent = _not_affine(model.body) or _not_affine(model.head)
    if bent:
        raise _refused(
            name,
            f"a mean over the map, and a {bent} behind it: the score of a mean is then not the "
            "mean of the scores",
            "a linear head behind a mean, or a head behind a map that is flattened "
            "(VGG; --pool flatten)",
        )
    return None


def takes_the_mean(neck: nn.Module, found: Tensor, shape: tuple[int, ...] = ()) -> bool:
    """Whether a neck takes the mean of maps like `found`, or of this shape: judged by noise."""
    noise = _noise(shape or tuple(found.shape), found.device)
    return noise.ndim == 4 and _alike(_vectors(neck, noise), noise.mean(dim=(2, 3)))


def _noise(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def features_of_black(model: Assembled, height: int, width: int) -> Tensor:
    """What the features make of one black image."""
    device = model.normalise.mean.device
    image = torch.zeros(1, model.spec.channels, height, width, dtype=torch.uint8, device=device)
    found: Tensor = model.features(model.normalise(image))
    return found


def _must_grow(model: Assembled, found: Tensor, name: str) -> None:
    """Refuse features that take one size only, or have pooled the image away already."""
    px, wider = model.spec.size[0], model.spec.size[1] * 3 // 2 + 1
    try:
        wide = features_of_black(model, px, wider)
    except Exception as error:  # each library has its own words for it
        raise_machine_error(error)
        raise _refused(
            name, f"features that refuse {px} x {wider} pixels: {type(error).__name__}",
            "a backbone that takes images of any size",
        ) from error  # fmt: skip
    if wide.ndim != 4 or wide.shape[3] <= found.shape[3]:
        raise _refused(
            name, f"a map of {tuple(found.shape[2:])} that does not grow with the image",
            "a backbone whose features are a map, with the pooling behind it",
        )  # fmt: skip


def _vectors(neck: nn.Module, found: Tensor) -> Tensor | None:
    try:
        made: Tensor = neck(found)
    except Exception as error:  # a neck made for one size
        raise_machine_error(error)
        return None
    return made


def _alike(one: Tensor | None, other: Tensor) -> bool:
    return (
        one is not None
        and one.shape == other.shape
        and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    )


def _not_affine(part: nn.Module) -> str | None:
    """The kind of the first layer that is not known to be affine, or None."""
    if type(part) is nn.Sequential:
        return next((bent for one in part if (bent := _not_affine(one))), None)
    return None if type(part) in AFFINE else type(part).__name__


def _words(neck: nn.Module) -> str:
    """Pool(max)"""
    return " ".join(str(neck).split())[:80]


def _refused(name: str, found: str, expected: str) -> OptionError:
    return OptionError(
        f"there is no dense evaluation of the head {name}",
        found=found,
        expected=expected,
        do="use --tta vgg150 or --tta multi: crops are plain images to every network",
    )
