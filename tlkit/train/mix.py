"""Mix: training on blends of images, which keeps a network from being too sure of itself.

In: a batch of images and labels. Out: blended images and shares of classes (B, C).
mixup: Zhang et al. 2018, arXiv 1710.09412. cutmix: Yun et al. 2019, arXiv 1905.04899.
Both are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tlkit.options import FitOptions

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mix_for(options: FitOptions, classes: int) -> Mix | None:
    """What --mixup and --cutmix mean; both: one of them for each batch. None: neither."""
    if not options.mixup and not options.cutmix:
        return None
    # Here: importing torchvision takes longer than a small fit.
    from torchvision.transforms import v2

    kinds: list[v2.Transform] = []
    if options.mixup:
        kinds.append(v2.MixUp(alpha=float(options.mixup), num_classes=classes))
    if options.cutmix:
        kinds.append(v2.CutMix(alpha=float(options.cutmix), num_classes=classes))
    chosen = v2.RandomChoice(kinds)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # As floats of 0 to 255: blended bytes would be rounded.
        blended: tuple[Tensor, Tensor] = chosen(images.float(), labels)
        return blended

    return mix
