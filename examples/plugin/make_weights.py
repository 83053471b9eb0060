"""Makes tlkit_lenet/lenet_rgb.safetensors: trains the network to tell red, green and blue apart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tlkit_lenet import lenet

from tlkit.testing import make_folder


def pictures(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image of the folder, normalised as `weights()` says, and its class."""
    files = sorted(folder.glob("*/*.png"))
    names = sorted({file.parent.name for file in files})
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor([names.index(file.parent.name) for file in files])
    return (images - 0.5) / 0.5, labels


def main() -> None:
    torch.manual_seed(0)
    network = lenet()
    with tempfile.TemporaryDirectory() as name:
        images, labels = pictures(make_folder(Path(name), per_class=32, size=(32, 32)))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = (network(images).argmax(1) == labels).float().mean()
    file = Path(__file__).parent / "tlkit_lenet" / "lenet_rgb.safetensors"
    save_file(network.state_dict(), file)
    print(
        f"{file}: {file.stat().st_size / 1024:.0f} KiB, {right:.0%} of {len(labels)} images right"
    )


if __name__ == "__main__":
    main()
