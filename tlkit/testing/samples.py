"""Samples: what to test with, without downloads.

`TINY`, a backbone that builds in a millisecond, and `make_folder`, an image folder whose classes
are colours. torch is imported inside functions: TINY keeps the laws too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.backbone import Backbone, InputSpec, Network, StateDict, Weights, WeightSet

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Seeded:
    """TINY's weights, made from a seed: always on the disk, never a file."""

    def where(self) -> str:
        return "made from a seed by tlkit.testing"

    def on_disk(self) -> bool:
        return True

    def fetch(self) -> StateDict:
        import torch

        seed = torch.Generator().manual_seed(7)
        state: dict[str, Tensor] = {}
        for key, value in _tiny_network().state_dict().items():
            if key.endswith("running_var"):
                # Away from 1, so that a BatchNorm that forgot its statistics is noticed.
                state[key] = 0.5 + torch.rand(value.shape, generator=seed)
            elif value.is_floating_point():
                fan_in = max(1, value[0].numel())
                noise = torch.randn(value.shape, generator=seed)
                state[key] = noise * (2 / fan_in) ** 0.5 if value.ndim > 1 else 1 + 0.1 * noise
            else:
                state[key] = value.clone()
        return state


def _tiny_network() -> nn.Sequential:
    from torch import nn

    def stage(wide_in: int, wide_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide_in, wide_out, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide_out),
            nn.ReLU(),
        )

    features = nn.Sequential(OrderedDict(stage1=stage(3, 8), stage2=stage(8, 16)))
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(features=features, neck=neck, classifier=nn.Linear(16, 5)))


def _tiny_weights() -> tuple[WeightSet, ...]:
    half = (0.5, 0.5, 0.5)
    return (
        WeightSet(
            name="seeded",
            input=InputSpec(crop_px=32, resize_px=36, mean=half, std=half),
            source=_Seeded(),
            licence="Apache-2.0",
            classes=5,
        ),
    )


def _tiny_build(weights: Weights) -> Network:

    network = _tiny_network()
    weights.load_into(network)
    features, neck, classifier = network
    return Network(
        features=features,
        neck=neck,
        classifier=classifier,
        stages={name: (stage,) for name, stage in features.named_children()},
        input=weights.input,
    )


TINY = Backbone(
    name="tiny",
    about="two convolutions with BatchNorm, for tests: D = 16, K = 5, 32 px",
    weights=_tiny_weights,
    build=_tiny_build,
)


def make_folder(
    path: Path,
    classes: Sequence[str] = ("red", "green", "blue"),
    per_class: int = 8,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    ending: str = ".png",
) -> Path:
    """Write an image folder, path/CLASS/NNN.png, whose classes are colours with noise.

    The hues are spread evenly over the classes, in their order: with three they are red, green and
    blue. `size` is (width, height) in pixels; `ending` may be `.jpg`. No two images are alike, and
    the same arguments give the same pixels. Returns `path`.
    """
    import colorsys

    import numpy as np
    from PIL import Image

    width, height = size
    for number, name in enumerate(classes):
        folder = path / name
        folder.mkdir(parents=True, exist_ok=True)
        colour = np.array(colorsys.hsv_to_rgb(number / len(classes), 0.8, 0.8)) * 255
        for image in range(per_class):
            random = np.random.default_rng([seed, number, image])
            light = random.uniform(-25, 25)
            noise = random.normal(0, 25, size=(height, width, 3))
            pixels = np.clip(colour + light + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image:03d}{ending}")
    return path
