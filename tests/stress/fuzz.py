"""Fuzz: good files with bytes, fields and sentences changed, read as a stranger's would be.

    python tests/stress/fuzz.py images|heads [--count 20000] [--seed 0] [--keep FOLDER]

images: files of every format are mutated and decoded. heads: head files are mutated, some of them
by one who makes all digests right again, inspected, loaded, and asked about an image.
Each file must be read or refused with a reason, within 5 s and 1 GB, in a process that lives on.
Prints how many were; exit status 1, and the files in FOLDER, where one did something else.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

LONGEST_S = 5.0
LARGEST_GB = 1.0

# --- mutations ------------------------------------------------------------------------------------

NASTY = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to eight changes, of the kinds that files suffer, or that break their readers."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        # Headers are where sizes and types are.
        end = len(found) if rng.random() < 0.5 else min(len(found), 200)
        at = rng.randrange(max(1, end))
        how = rng.randrange(7)
        if how == 0 and found:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif how == 2:
            form = rng.choice(["<H", ">H", "<I", ">I"])
            number = rng.choice(NASTY) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
            found[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif how == 3:
            del found[at : at + rng.randrange(1, 64)]
        elif how == 4:
            found[at:at] = rng.randbytes(rng.randrange(1, 64))
        elif how == 5:
            found = found[: rng.randrange(len(found) + 1)]
        else:
            from_there = rng.randrange(max(1, len(other)))
            found[at:] = other[from_there:]
    return bytes(found)


# --- images ---------------------------------------------------------------------------------------


def good_images() -> list[bytes]:
    """A small image in every format and mode that is read."""
    import numpy as np
    from PIL import Image, features

    random_numbers = np.random.default_rng(0)
    colours = random_numbers.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    photo = Image.fromarray(colours).resize((150, 120), Image.Resampling.BICUBIC)
    deep = Image.fromarray(random_numbers.integers(0, 65536, (40, 50)).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}
    wanted: list[tuple[Image.Image, str, dict[str, object]]] = [
        (photo, "JPEG", {"exif": exif}),
        (photo, "JPEG", {"progressive": True, "quality": 95}),
        (photo.convert("L"), "JPEG", {}),
        (photo.convert("CMYK"), "JPEG", {}),
        (photo, "PNG", {}),
        (photo.convert("RGBA"), "PNG", {}),
        (photo.convert("LA"), "PNG", {}),
        (photo.convert("P"), "PNG", {"transparency": 3}),
        (photo.convert("1"), "PNG", {}),
        (deep, "PNG", {}),
        (photo, "GIF", frames),
        (photo, "BMP", {}),
        (photo, "WEBP", {}),
        (photo.convert("RGBA"), "WEBP", {"lossless": True}),
        (photo, "WEBP", frames),
        (photo, "TIFF", {"compression": "tiff_lzw"}),
        (photo, "TIFF", {"compression": "jpeg"}),
        (photo.convert("F"), "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (photo, "PPM", {}),
        (photo, "JPEG2000", {}),
    ]
    if features.check("avif"):
        wanted.append((photo, "AVIF", {}))
    found = []
    for image, kind, options in wanted:
        out = io.BytesIO()
        image.save(out, kind, **options)
        found.append(out.getvalue())
    return found


def image_cases(place: Path) -> Callable[[random.Random], tuple[bytes, str]]:
    good = good_images()

    def make(rng: random.Random) -> tuple[bytes, str]:
        return mutated(rng.choice(good), rng.choice(good), rng), rng.choice(["jpg", "png", "tif"])

    return make


def read_image(path: Path) -> str:
    from tlkit.data.images import Unreadable, read

    try:
        pixels = read(path, at_least_px=64)
    except Unreadable as error:
        return "named" if str(error) else "refused without a reason"
    return "read" if pixels.ndim == 3 and pixels.dtype == "uint8" else "not an image"


# --- heads ----------------------------------------------------------------------------------------


def good_heads(place: Path) -> list[bytes]:
    """Heads of several shapes on a tiny backbone."""
    import tlkit
    from tlkit.testing import make_folder

    photos = make_folder(place / "photos", per_class=4)
    kinds: list[dict[str, object]] = [
        {},
        {"head": "mlp", "hidden": 8, "epochs": 1},
        {"freeze": "none", "epochs": 1},
        {"attach": "append"},
    ]
    return [
        tlkit.fit(photos, backbone="tiny", out=place / f"run{i}", **one).head.read_bytes()
        for i, one in enumerate(kinds)
    ]


def head_cases(place: Path) -> Callable[[random.Random], tuple[bytes, str]]:
    good = good_heads(place)

    def make(rng: random.Random) -> tuple[bytes, str]:
        data = rng.choice(good)
        changed = forged(data, rng) if rng.random() < 0.5 else mutated(data, rng.choice(good), rng)
        return changed, "safetensors"

    return make


STRANGE = [
    None, True, -1, 0, 10**9, 10**30, 10**400, 1.5, float("nan"), float("inf"), "",
    "../../etc/passwd", "/dev/zero", "\x1b[2J", "\ud800", "x" * 100_000, [], {}, [[[]]],
    ["a"] * 10_000,
    "timm/hf-hub:someone/something", "none", "file", ["a"], ["a", "a", "b"], [1, 2, 3], 65536,
    ["a", "\ud800"], ["\x1b[2J", "b"],
]  # fmt: skip


def other_tensors(tensors: dict[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """One missing, one too many, or one of another shape or type."""
    import torch

    name = rng.choice(sorted(tensors))
    shape = rng.choice([(0,), (1, 1, 1), (100_000,), (3, 7)])
    kind = rng.choice([torch.float16, torch.int64])
    one: dict[str, Tensor] = rng.choice(
        [
            {name + "x": tensors[name].clone()},
            {name: torch.zeros(shape)},
            {name: tensors[name].to(kind)},
            {name: torch.full(tensors[name].shape, float("nan")).to(tensors[name].dtype)},
        ]
    )
    return {**tensors, **one}


def forged(data: bytes, rng: random.Random) -> bytes:
    """A head whose card or tensors were changed by one who makes the digests right again."""
    from safetensors.torch import load, save

    from tlkit import artifact
    from tlkit.card import sha256_of
    from tlkit.weights import digest

    length = int.from_bytes(data[:8], "little")
    card = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][artifact.CARD])
    tensors = load(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        # A card whose parts are no parts any more is strange enough.
        inside = {where: card.get(where) for where in ("plan", "input", "weights", "metrics")}
        if isinstance(inside["metrics"], dict):
            inside["scores"] = inside["metrics"].get("validation")
        parts = [card, *(one for one in inside.values() if isinstance(one, dict) and one)]
        if rng.random() < 0.3:
            tensors = other_tensors(tensors, rng)
        else:
            part = rng.choice(parts)
            name = rng.choice(sorted(part))
            part[name] = rng.choice(STRANGE)
            if rng.random() < 0.1:
                del part[name]
    card["tensors_sha256"] = digest(tensors.items())
    text = json.dumps(card)
    return save(tensors, {artifact.CARD: text, artifact.CARD_DIGEST: sha256_of(text)})


def command(*words: str | Path) -> None:
    """Run a command in this process; what it raises beside its own errors is raised here."""
    from click.testing import CliRunner

    from tlkit.cli import main

    done = CliRunner().invoke(main, [str(one) for one in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception


def read_head(path: Path) -> str:
    import tlkit
    from tlkit import artifact
    from tlkit.errors import HeadFileError

    command("inspect", path)
    try:
        artifact.inspect(path)
        whole = True
    except HeadFileError:
        whole = False
    try:
        head = tlkit.load(path)
    except HeadFileError as error:
        return "named" if str(path) in str(error) else "refused without its name"
    if not whole:
        return "loaded, though inspect refused it"
    photo = path.parent / "photos" / "red" / "000.png"
    command("predict", photo, "--head", path, "--format", "csv")
    one = head.predict(photo)[0]
    return "read" if abs(sum(one.probabilities) - 1) < 1e-6 else "no probabilities"


# --- the run --------------------------------------------------------------------------------------

KINDS = {"images": (image_cases, read_image), "heads": (head_cases, read_head)}


def work(kind: str, site: Path, pipe: Connection) -> None:
    """Read each file whose path comes, in a process that does nothing else, and tell of it."""
    import tiny

    site.mkdir()
    tiny.install(site)
    reader = KINDS[kind][1]
    while True:
        path = Path(pipe.recv())
        begin = time.perf_counter()
        try:
            outcome = reader(path)
        except Exception as error:
            outcome = f"raised {type(error).__name__}: {error}"
        seconds = time.perf_counter() - begin
        pipe.send((outcome, seconds, peak_gb()))


def peak_gb() -> float:
    """The most memory that this process has held, without the libraries that it maps.

    Not getrusage's: that counts the process it came from. And of a library, which torch's import
    maps half a gigabyte of, as many pages are present as the disk's cache pleases.
    """
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    held, mapped = (int(lines[name].split()[0]) for name in ("VmHWM", "RssFile"))
    return (held - mapped) / 1e6


def watched(
    kind: str, place: Path, seed: int, count: int
) -> Iterator[tuple[str, float, float, Path]]:
    """(outcome, seconds, peak GB, file) of each; a process that dies or hangs is begun again."""
    import tiny

    site = place / "site"
    site.mkdir()
    tiny.install(site)
    make = KINDS[kind][0](place)
    start = multiprocessing.get_context("spawn")
    number = 0
    while number < count:
        here, there = start.Pipe()
        process = start.Process(
            target=work, args=(kind, place / f"site{number}", there), daemon=True
        )
        process.start()
        there.close()
        patience = 300.0  # until it has begun
        while number < count:
            data, ending = make(random.Random(f"{seed}-{number}"))
            path = place / f"{number}.{ending}"
            path.write_bytes(data)
            number += 1
            try:
                here.send(str(path))
                if not here.poll(patience):
                    yield "hangs", patience, 0.0, path
                    break
                outcome, seconds, peak = here.recv()
            except (EOFError, BrokenPipeError):
                process.join()
                yield f"died with {process.exitcode}", 0.0, 0.0, path
                break
            patience = 4 * LONGEST_S
            yield outcome, seconds, peak, path
            path.unlink()
        process.kill()
        process.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    given = parser.parse_args()
    outcomes: Counter[str] = Counter()
    slowest = largest = 0.0
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["TLKIT_CACHE"] = str(Path(name) / "cache")
        for outcome, seconds, peak, path in watched(
            given.kind, Path(name), given.seed, given.count
        ):
            outcomes[outcome[:80]] += 1
            slowest, largest = max(slowest, seconds), max(largest, peak)
            if outcome not in ("read", "named") or seconds > LONGEST_S:
                faults += 1
                given.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, given.keep)
                print(f"{path.name}: {outcome[:300]}, {seconds:.1f} s", flush=True)
    print(f"{given.kind}: {sum(outcomes.values())} files, seed {given.seed}: {dict(outcomes)}")
    print(f"slowest {slowest:.2f} s, peak {largest:.2f} GB, faults {faults}")
    sys.exit(1 if faults or largest > LARGEST_GB else 0)
