"""LeNet for colour: a small network with its weights in the package.

The convolutions are those of LeCun et al. 1998; the classifier is narrower, to keep the file small.
torch is imported inside `build`, so that listing the installed backbones stays quick.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from tlkit.backbone import Backbone, InputSpec, Network, PackageFile, Weights, WeightSet

if TYPE_CHECKING:
    from torch import nn

HALF = (0.5, 0.5, 0.5)


def weights() -> tuple[WeightSet, ...]:
    """Every published set of weights, the default first: here one, in the package itself."""
    return (
        WeightSet(
            name="colours",
            input=InputSpec(crop_px=32, resize_px=36, mean=HALF, std=HALF),
            source=PackageFile(
                package="tlkit_lenet",
                inside="lenet_rgb.safetensors",
                distribution="tlkit-lenet",
            ),
            licence="Apache-2.0",
            classes=3,
        ),
    )


def lenet() -> nn.Sequential:
    """The whole network, (B, 3, H, W) -> (B, 3), with random weights."""
    from torch import nn

    def stage(wide_in: int, wide_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(wide_in, wide_out, 5), nn.ReLU(), nn.MaxPool2d(2))

    features = nn.Sequential(OrderedDict(stage1=stage(3, 6), stage2=stage(6, 16)))
    # Pooled to LeNet's 5 x 5 whatever the size of the images: a head needs one width.
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(5), nn.Flatten())
    classifier = nn.Sequential(nn.Linear(400, 40), nn.ReLU(), nn.Linear(40, 3))
    return nn.Sequential(OrderedDict(features=features, neck=neck, classifier=classifier))


def build(weights: Weights) -> Network:
    """The network in the parts that tlkit joins, cuts and freezes."""
    network = lenet()
    weights.load_into(network)
    features, neck, classifier = network
    return Network(
        features=features,
        neck=neck,
        classifier=classifier,
        stages={name: (stage,) for name, stage in features.named_children()},
        input=weights.input,
    )


lenet_rgb = Backbone(
    name="lenet_rgb",
    about="LeNet for colour images, 32 px (LeCun et al. 1998)",
    weights=weights,
    build=build,
)
