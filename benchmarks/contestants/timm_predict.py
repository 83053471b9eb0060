"""What timm's inference.py does (the script is not part of its package): loader, network, top 5.

timm 1.0: create_dataset, resolve_data_config, create_loader, softmax, topk, one CSV.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile

import torch
from lite0 import MEAN, PX, STD, lite0
from timm.data import create_dataset, create_loader

if __name__ == "__main__":
    network = lite0(1000).eval()
    dataset = create_dataset("", root=sys.argv[1])
    loader = create_loader(
        dataset, batch_size=256, input_size=(3, PX, PX), use_prefetcher=False, num_workers=2,
        interpolation="bicubic", mean=MEAN, std=STD, crop_pct=0.875, device=torch.device("cpu"),
    )  # fmt: skip
    rows = []
    with torch.inference_mode():
        for images, _ in loader:
            values, indices = network(images).softmax(dim=-1).topk(5)
            rows += zip(indices.tolist(), values.tolist(), strict=True)
    with tempfile.TemporaryFile("w") as file:
        names = [name for name, _ in dataset.reader.samples]
        csv.writer(file).writerows(
            [name, *indices, *values] for name, (indices, values) in zip(names, rows, strict=True)
        )
    print(json.dumps({"images": len(rows)}))
