"""Views: the test-time evaluations of the VGG paper against as many plain predictions.

    python benchmarks/views.py FOLDER [--photos 100] [--repeat 3]

FOLDER has train and test; the photos are the first ones of each class of test. Whole processes:
150 plain predictions of each photo (links to it), its 150 crops, and the dense evaluation at three
scales with mirrors.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from measuring import costs_table, in_turn, run

VIEWS = 150


def linked(folder: Path, photos: int, times: int, place: Path) -> Path:
    """Class folders with so many links to each of the first photos."""
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    for one in classes:
        (place / one.name).mkdir(parents=True)
        for number, photo in enumerate(sorted(one.iterdir())[: photos // len(classes)]):
            for again in range(times):
                name = f"{number:05d}-{again:03d}{photo.suffix.lower()}"
                (place / one.name / name).symlink_to(photo.resolve())
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["TLKIT_CACHE"] = str(place / "cache")
        once = linked(given.folder / "test", given.photos, 1, place / "once")
        often = linked(given.folder / "test", given.photos, VIEWS, place / "often")
        head = place / "head"
        tlkit = [sys.executable, "-m", "tlkit"]
        run([*tlkit, "fit", given.folder, "--out", head])
        predict = [*tlkit, "predict", "--head", head, "--out", place / "out.csv"]
        programs = {
            f"{VIEWS} plain predictions of each": [*predict, often],
            "vgg150": [*predict, once, "--tta", "vgg150"],
            "dense": [*predict, once, "--tta", "dense"],
        }
        costs_table(in_turn(programs, given.repeat), of="vgg150", score="")
