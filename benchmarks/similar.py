"""Similar: how long a search among a million photos takes once their features are loaded.

    python benchmarks/similar.py [--rows 1000000] [--width 1280] [--rounds 7]

Features are made up: directions around a thousand centres, none negative, as networks give them.
They are stored in half precision with a scale for each row, as the bank stores them, and loaded
from there. The last answers are compared with those of a plain search in single precision.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import table
from torch import Tensor
from torch.nn import functional

from tlkit.ask.index import Index
from tlkit.data.folder import Catalog
from tlkit.data.names import Names
from tlkit.train.bank import Bank

AT_ONCE = 10_000
CENTRES = 1000
COUNT = 10
"""Neighbours that are asked for."""


def made(count: int, width: int, seed: int) -> Tensor:
    """(count, width)"""
    centres = torch.randn(CENTRES, width, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed + 1)
    which = torch.randint(CENTRES, (count,), generator=random)
    return (centres[which] + torch.randn(count, width, generator=random)).clamp(min=0)


def stored(place: Path, rows: int, width: int) -> Bank:
    """Write the rows, and what reads them."""
    half = np.lib.format.open_memmap(place / "rows.npy", "w+", np.float16, (rows, width))
    scale = np.empty((rows, 1), np.float32)
    for begin in range(0, rows, AT_ONCE):
        part = made(min(AT_ONCE, rows - begin), width, begin).numpy()
        scale[begin : begin + len(part)] = part.max(axis=1, keepdims=True)
        half[begin : begin + len(part)] = part / scale[begin : begin + len(part)]
    half.flush()
    return Bank(
        rows=lambda places: torch.from_numpy(half[places] * scale[places]),
        places=np.arange(rows)[:, None],
        shape=(width,),
        labels=torch.zeros(rows, dtype=torch.int64),
        catalog=Catalog(
            root=Path(), classes=("",), files=Names.of([]), labels=np.zeros(0, np.int64)
        ),
        bad=(),
    )


def plain(bank: Bank, asked: Tensor) -> Tensor:
    """(Q, COUNT) cosines of the nearest, in single precision throughout."""
    unit = functional.normalize(asked, dim=1)
    every = torch.cat([functional.normalize(block, dim=1) @ unit.T for block in bank.blocks()])
    return every.topk(COUNT, dim=0).values.T


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bank = stored(Path(name), given.rows, given.width)
        began = time.perf_counter()
        index = Index(bank)
        loading = time.perf_counter() - began
        lines = []
        for images in (1, 8, 64):
            seconds, off = [], 0.0
            for turn in range(given.rounds):
                asked = made(images, given.width, given.rows + turn * 64)
                began = time.perf_counter()
                found = index.nearest(asked, COUNT)
                seconds.append(time.perf_counter() - began)
            wanted = plain(bank, asked)
            for one, right in zip(found, wanted, strict=True):
                off = max(off, float(np.abs(one.similarities - right.numpy()).max()))
            low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
            lines.append([str(images), f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{off:.0e}"])
    print(f"{given.rows:,} rows of {given.width}: loading {loading:.0f} s; "
          f"held {index.vectors.nbytes / 1e6:,.0f} MB")  # fmt: skip
    table(["images asked at once", "seconds", "largest difference to a plain search"], lines)
