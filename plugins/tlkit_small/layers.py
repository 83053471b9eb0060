"""The inception module of the tutorial nets. A module of its own, since it needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Inception(nn.Module):
    """(B, C, h, w) -> (B, 88, h, w): four branches side by side.

    1x1 to 16 · 1x1 to 16, 5x5 to 24 · 1x1 to 16, 3x3 to 24, 3x3 to 24 · average pool, 1x1 to 24.
    The 1x1 convolutions before the large ones are what keeps it cheap. No ReLU inside: as in the
    tutorial, the one that follows the next pooling is the only one.
    """

    WIDTH = 16 + 24 + 24 + 24

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, 16, 1)
        self.five = nn.Sequential(nn.Conv2d(channels, 16, 1), nn.Conv2d(16, 24, 5, padding=2))
        self.three = nn.Sequential(
            nn.Conv2d(channels, 16, 1),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.Conv2d(24, 24, 3, padding=1),
        )
        self.pooled = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1), nn.Conv2d(channels, 24, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        branches = (self.point, self.five, self.three, self.pooled)
        return torch.cat([branch(images) for branch in branches], dim=1)
