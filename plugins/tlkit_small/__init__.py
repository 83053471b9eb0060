"""Networks for small images, to be trained from scratch: nobody publishes weights of them.

Inception nets for 28 px grey digits, after the PyTorch tutorials' lecture on GoogLeNet; a VGG of
11 convolutions, a ResNet and a DenseNet for 32 px colour images. `--pool flatten` takes the VGG's
pooling away, `--pool avg` makes it global; `--attach last` keeps its two hidden layers.
Not here: training them (tlkit/train/).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from tlkit.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    InputSpec,
    Network,
    Weights,
    WeightSet,
    untrained,
)

if TYPE_CHECKING:
    from torch import nn

DIGITS = InputSpec(crop_px=28, resize_px=28, mean=(0.0,), std=(1.0,), channels=1)
"""Grey pixels in [0, 1], as they are."""
COLOUR = InputSpec(crop_px=32, resize_px=32, mean=IMAGENET_MEAN, std=IMAGENET_STD)

CLASSES = 10
"""Outputs of the classifiers: both MNIST and CIFAR-10 have ten."""

VGG_WIDTHS = ((64, 64), (128,) * 3, (256,) * 3, (512,) * 3)
RESNET_WIDTHS = (16, 32, 64)


def _network(
    stages: Mapping[str, nn.Module], neck: nn.Module, classifier: nn.Module, weights: Weights
) -> Network:
    """The parts as a `Network`, with the weights of a file loaded where there is one."""
    from torch import nn

    features = nn.Sequential(OrderedDict(stages))
    parts = OrderedDict(features=features, neck=neck, classifier=classifier)
    weights.load_into(nn.Sequential(parts))
    return Network(
        features=features,
        neck=neck,
        classifier=classifier,
        stages={name: (stage,) for name, stage in stages.items()},
        input=weights.input,
    )


def _inception(modules: int, weights: Weights) -> Network:
    """Convolution, modules, convolution, modules: 4 x 4 x 88 = 1408 numbers, one linear layer.

    Initialised as torch does by itself, like the tutorial's.
    """
    from torch import nn

    from tlkit_small.layers import Inception

    def part(channels: int, width: int) -> OrderedDict[str, nn.Module]:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, width, 5), pool=nn.MaxPool2d(2), relu=nn.ReLU(inplace=True)
        )
        for number in range(1, modules + 1):
            layers[f"inception{number}"] = Inception(width)
            width = Inception.WIDTH
        return layers

    stages = {
        "stage1": nn.Sequential(part(1, 10)),
        "stage2": nn.Sequential(part(Inception.WIDTH, 20)),
    }
    # The pooling changes nothing at 28 px; it lets the net look at larger images too.
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return _network(stages, neck, nn.Linear(4 * 4 * Inception.WIDTH, CLASSES), weights)


def _vgg(weights: Weights) -> Network:
    """Initialised like torchvision's: Kaiming normal by fan-out; linear layers normal(0, 0.01)."""
    from torch import nn

    stages: dict[str, nn.Module] = {}
    before = 3
    for number, widths in enumerate(VGG_WIDTHS, start=1):
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        stages[f"block{number}"] = nn.Sequential(*layers, nn.MaxPool2d(2))
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    classifier = nn.Sequential(
        nn.Linear(2 * 2 * before, 4096), nn.ReLU(inplace=True),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.2),
        nn.Linear(4096, CLASSES),
    )  # fmt: skip
    for layer in (*(one for stage in stages.values() for one in stage.modules()), *classifier):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.zeros_(layer.bias)
    return _network(stages, neck, classifier, weights)


def _resnet(blocks: int, weights: Weights) -> Network:
    """6n + 2 layers in three stages (section 4.2 of the paper), with projection shortcuts."""
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    def stage(before: int, width: int) -> nn.Sequential:
        stride = width // before
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
        first = BasicBlock(before, width, stride, shortcut if stride > 1 else None)
        return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))

    first, *_, last = RESNET_WIDTHS
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
    }
    for number, width in enumerate(RESNET_WIDTHS, start=1):
        stages[f"layer{number}"] = stage(RESNET_WIDTHS[max(0, number - 2)], width)
    for layer in (one for part in stages.values() for one in part.modules()):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _network(stages, neck, nn.Linear(last, CLASSES), weights)


def _densenet(layers: int, weights: Weights) -> Network:
    """Torchvision's DenseNet, growth 12, with a 3 x 3 stem that keeps the size (the paper, 4.2)."""
    from torch import nn
    from torchvision.models import DenseNet

    network = DenseNet(
        growth_rate=12, block_config=(layers,) * 3, num_init_features=24, num_classes=CLASSES
    )
    parts = network.features
    stem = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight)
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(stem),
        "block1": nn.Sequential(parts.denseblock1, parts.transition1),
        "block2": nn.Sequential(parts.denseblock2, parts.transition2),
        "block3": nn.Sequential(parts.denseblock3, parts.norm5, nn.ReLU(inplace=True)),
    }
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _network(stages, neck, network.classifier, weights)


def _small(name: str, about: str, spec: InputSpec, build: Callable[[Weights], Network]) -> Backbone:
    return Backbone(name=name, about=about, weights=partial(_weights, spec), build=build)


def _weights(spec: InputSpec) -> tuple[WeightSet, ...]:
    return (untrained(spec),)


inception_small = _small(
    "inception_small",
    "two inception modules, 28 px grey (after Szegedy et al. 2014, arXiv 1409.4842)",
    DIGITS,
    partial(_inception, 1),
)
inception_small_deep = _small(
    "inception_small_deep",
    "six inception modules, 28 px grey (after Szegedy et al. 2014, arXiv 1409.4842)",
    DIGITS,
    partial(_inception, 3),
)
vgg_small = _small(
    "vgg_small",
    "VGG of 11 convolutions and 3 linear layers, 32 px (after Simonyan and Zisserman 2014, "
    "arXiv 1409.1556)",
    COLOUR,
    _vgg,
)
resnet20 = _small(
    "resnet20",
    "ResNet with 20 layers, 32 px (He et al. 2015, arXiv 1512.03385, section 4.2)",
    COLOUR,
    partial(_resnet, 3),
)
densenet40 = _small(
    "densenet40",
    "DenseNet-BC with 40 layers, growth 12, 32 px (Huang et al. 2016, arXiv 1608.06993)",
    COLOUR,
    partial(_densenet, 6),
)
