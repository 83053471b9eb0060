"""Network: EfficientNet-Lite, part for part what timm calls `tf_efficientnet_lite*`.

Tan and Le 2019 (arXiv 1905.11946), without squeeze-and-excitation, with ReLU6, and with stem and
head of one width for every size. The names of the tensors are timm's, so that files of either load.
It is written out here because importing timm, which imports torchvision, takes longer than anything
else that tlkit does for a single image; a test holds the two together, to the last bit.
Next door: __init__.py (the backbones and their weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional

# Of each stage: blocks, kernel, stride, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280
EPS = 1e-3


@torch.fx.wrap
def pad_same(images: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around (B, F, H, W) as TensorFlow's `SAME` has them: what is odd goes right and below.

    A step for torch.fx, which cannot follow what depends on a size.
    """
    room = []
    for side in (images.shape[3], images.shape[2]):
        # In whole numbers, which tracing follows; never negative, for no stride exceeds its kernel.
        over = ((side + stride - 1) // stride - 1) * stride + kernel - side
        room += [over // 2, over - over // 2]
    return functional.pad(images, room)


class Conv2dSame(nn.Conv2d):
    """A convolution with a stride, padded as in TensorFlow."""

    def forward(self, images: Tensor) -> Tensor:
        padded = pad_same(images, self.kernel_size[0], self.stride[0])
        return functional.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False)
    return Conv2dSame(channels, channels, kernel, stride, groups=channels, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPS)


class DepthwiseSeparable(nn.Module):
    """The block of the first stage, which does not expand: depthwise, then 1 x 1."""

    def __init__(self, channels: int, kernel: int, stride: int, out: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(channels, kernel, stride)
        self.bn1 = _norm(channels)
        self.conv_pw = nn.Conv2d(channels, out, 1, bias=False)
        self.bn2 = _norm(out)
        self.act = nn.ReLU6(inplace=True)
        self.skip = stride == 1 and channels == out

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.act(self.bn1(self.conv_dw(images)))
        found = self.bn2(self.conv_pw(found))
        return found + images if self.skip else found


class InvertedResidual(nn.Module):
    """1 x 1 to more channels, depthwise, 1 x 1 to few (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, channels: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.conv_pw = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn1 = _norm(wide)
        self.conv_dw = _depthwise(wide, kernel, stride)
        self.bn2 = _norm(wide)
        self.conv_pwl = nn.Conv2d(wide, out, 1, bias=False)
        self.bn3 = _norm(out)
        self.act = nn.ReLU6(inplace=True)
        self.skip = stride == 1 and channels == out

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.act(self.bn1(self.conv_pw(images)))
        found = self.act(self.bn2(self.conv_dw(found)))
        found = self.bn3(self.conv_pwl(found))
        return found + images if self.skip else found


class EfficientNetLite(nn.Module):
    """(B, 3, H, W) -> (B, K)"""

    def __init__(self, *, width: float, depth: float, classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem = Conv2dSame(3, STEM, 3, 2, bias=False)
        self.bn1 = _norm(STEM)
        self.blocks = nn.Sequential()
        channels = STEM
        for number, (count, kernel, stride, expansion, base) in enumerate(STAGES):
            ends = number in (0, len(STAGES) - 1)
            out = _scaled(base, width)
            blocks: list[nn.Module] = []
            for block in range(count if ends else math.ceil(count * depth)):
                step = stride if block == 0 else 1
                if expansion == 1:
                    blocks.append(DepthwiseSeparable(channels, kernel, step, out))
                else:
                    blocks.append(InvertedResidual(channels, kernel, step, expansion, out))
                channels = out
            self.blocks.append(nn.Sequential(*blocks))
        self.conv_head = nn.Conv2d(channels, TOP, 1, bias=False)
        self.bn2 = _norm(TOP)
        self.act = nn.ReLU6(inplace=True)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(TOP, classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        found = self.blocks(self.act(self.bn1(self.conv_stem(images))))
        vectors = self.pool(self.act(self.bn2(self.conv_head(found))))
        logits: Tensor = self.classifier(vectors)
        return logits

    def grouped(self) -> list[list[nn.Module]]:
        """The blocks of each stage."""
        return [list(stage.children()) for stage in self.blocks]

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """The features in order: the stem, seven stages, the top."""
        return {
            "stem": (self.conv_stem, self.bn1, self.act),
            **{f"block{i}": tuple(blocks) for i, blocks in enumerate(self.grouped(), start=1)},
            "top": (self.conv_head, self.bn2, self.act),
        }


def _scaled(channels: int, width: float) -> int:
    """Channels times the width, to the nearest multiple of 8 that loses less than a tenth."""
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


@torch.no_grad()
def _initialise(network: nn.Module) -> None:
    """As the paper's own code: normal by the fan-out, the classifier uniform."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            fan_out = area * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            edge = 1.0 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -edge, edge)
            nn.init.zeros_(module.bias)
