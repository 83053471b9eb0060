"""Scale: what a million, a hundred million and ten billion photos take, from what one takes here.

    python benchmarks/scale.py FOLDER [--photos 512] [--cores 16] [--price 0.714] [--disk 500]

Measures on this machine what a photo of the folder costs (listing its name, its bytes, decoding,
the network, its row in the bank, the solver), each as seconds of one core, and prints what so many
photos take on machines of that many cores, price (dollars an hour) and disk (MB a second): the
model of docs/scale.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import table
from parts import decode, first, frozen, seconds

SIZES = (10**6, 10**8, 10**10)
CLASSES = 10


@dataclass(frozen=True)
class Photo:
    """What one photo takes; seconds are those of one core."""

    list_s: float
    kilobytes: float
    decode_s: float
    network_s: float
    row_bytes: int
    solve_s: float
    """Of all penalties, with its row in memory."""
    passes: int
    """Over all rows, by the solver."""


@dataclass(frozen=True)
class Machine:
    cores: int
    price: float
    """Dollars an hour."""
    disk: float
    """MB a second."""
    memory: float
    """GB for rows."""


def stages(photo: Photo, machine: Machine, images: int, machines: int) -> dict[str, float]:
    """Seconds of each stage. Reading goes on beside computing; the solver is on one machine."""
    hands = machines * machine.cores
    rows = images * photo.row_bytes
    solving = images * photo.solve_s / machine.cores
    if rows > machine.memory * 1e9:
        solving = max(solving, photo.passes * rows / (machine.disk * 1e6))
    return {
        "list": images * photo.list_s,
        "read": images * photo.kilobytes / 1e3 / machine.disk / machines,
        "decode": images * photo.decode_s / hands,
        "network": images * photo.network_s / hands,
        "solve": solving,
    }


def lasts(took: dict[str, float]) -> float:
    """Seconds of the whole."""
    beside = max(took["read"], took["decode"] + took["network"])
    return took["list"] + beside + took["solve"]


def in_words(duration_s: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration_s >= length:
            return f"{duration_s / length:.1f} {unit}"
    return f"{duration_s:.1f} s"


def measured(folder: Path, photos: int, backbone: str, engine_name: str) -> Photo:
    import torch

    from tlkit.data.folder import scan
    from tlkit.model.engine import choose as engine
    from tlkit.model.engine import start, work_of
    from tlkit.train import probe
    from tlkit.train.store import KEY_BYTES

    cores = os.cpu_count() or 1
    catalog = first(folder, photos)
    cut, compute = frozen(backbone, "default", CLASSES)
    spec = cut.model.spec
    images = torch.randint(0, 256, (32, spec.channels, spec.crop_px, spec.crop_px)).byte()
    work, answer = work_of(cut.frozen, compute, images[:1], 10**9)
    choice = engine(engine_name, compute, work)
    runner = start(choice, cut.frozen, compute, images[:2], work)
    print(f"{backbone}, {len(catalog)} photos; {choice.name}, {compute.words}")

    with tempfile.TemporaryDirectory() as place:
        files = Path(place) / "many"
        for number in range(20_000):
            if number % 1000 == 0:
                (files / str(number)).mkdir(parents=True)
            (files / str(number // 1000 * 1000) / f"{number}.jpg").touch()
        list_s = seconds(lambda: scan(files)) / 20_000
    row_bytes = 4 + 2 * answer[0].numel() + KEY_BYTES

    rows = 20_000
    inputs = torch.randn(rows, answer.shape[1])
    passes = 0

    def blocks():
        nonlocal passes
        passes += 1
        yield inputs

    # Classes that overlap, as those of photos do: the path ends in hundreds of passes.
    labels = inputs @ torch.randn(answer.shape[1], CLASSES) + torch.randn(rows, CLASSES) * 20
    targets = torch.nn.functional.one_hot(labels.argmax(dim=1), CLASSES) / rows
    layer = torch.nn.Linear(answer.shape[1], CLASSES)
    span = probe._Span(blocks=blocks, numbers=inputs.numel(), basis=None)
    started = time.perf_counter()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for penalty in probe.penalties(20):
            probe._minimise(layer, span, targets, penalty)
    solve_s = (time.perf_counter() - started) / rows
    return Photo(
        list_s=list_s,
        kilobytes=sum(one.stat().st_size for one in catalog.paths) / len(catalog) / 1e3,
        decode_s=seconds(lambda: decode(catalog, spec)) / len(catalog) * cores,
        network_s=seconds(lambda: runner(images)) / len(images) * cores,
        row_bytes=row_bytes,
        solve_s=solve_s * cores,
        passes=passes,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--price", type=float, default=0.714)
    parser.add_argument("--disk", type=float, default=500)
    parser.add_argument("--memory", type=float, default=24)
    given = parser.parse_args()

    photo = measured(given.folder, given.photos, given.backbone, given.engine)
    machine = Machine(given.cores, given.price, given.disk, given.memory)
    table(
        ["of one photo", "here"],
        [
            ["listing its name", f"{photo.list_s * 1e6:.2f} µs"],
            ["reading", f"{photo.kilobytes:.0f} kB"],
            ["decoding and resizing", f"{photo.decode_s * 1e3:.2f} ms of one core"],
            ["the network", f"{photo.network_s * 1e3:.2f} ms of one core"],
            ["its row in the bank", f"{photo.row_bytes:,} bytes"],
            ["solving", f"{photo.solve_s * 1e3:.2f} ms of one core, in {photo.passes} passes"],
        ],
    )
    print()
    rows = []
    for images in SIZES:
        for machines in (1, 16, 256):
            took = stages(photo, machine, images, machines)
            whole = lasts(took)
            # The solver's machine is one: the others are given back.
            hours = (machines * (whole - took["solve"]) + took["solve"]) / 3600
            rows.append(
                [
                    f"{images:.0e}".replace("e+0", "e").replace("e+", "e"), str(machines),
                    *(in_words(one) for one in took.values()), in_words(whole),
                    max(took, key=lambda name: took[name]),
                    f"{images * photo.row_bytes / 1e9:,.0f}",
                    f"{hours * machine.price / images * 1e6:.2f}",
                ]
            )  # fmt: skip
    table(
        ["images", "machines", "list", "read", "decode", "network", "solve", "in all",
         "bottleneck", "bank, GB", "$ per million"],
        rows,
    )  # fmt: skip
