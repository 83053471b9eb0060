"""Predict: many photos, tlkit and its peers on the same folder and network, whole processes.

    python benchmarks/predict.py FOLDER [--photos 2000] [--repeat 3]

FOLDER has train and test; its photos are repeated by links until there are so many.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

from measuring import contestant, costs_table, in_turn, run, there


def linked(folder: Path, photos: int, place: Path) -> Path:
    """A folder with so many links to photos."""
    there = sorted(one for one in folder.rglob("*") if one.suffix.lower() in (".jpg", ".png"))
    place.mkdir(parents=True)
    for number, one in enumerate(itertools.islice(itertools.cycle(there), photos)):
        os.symlink(one.resolve(), place / f"{number:07d}{one.suffix.lower()}")
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["TLKIT_CACHE"] = str(place / "cache")
        photos = linked(given.folder, given.photos, place / "photos" / "all")
        head = place / "head"
        tlkit = [sys.executable, "-m", "tlkit"]
        run([*tlkit, "fit", given.folder, "--out", head])
        predict = [*tlkit, "predict", photos, "--head", head, "--out", place / "out.csv"]
        programs = {
            "tlkit": predict,
            "tlkit, eager": [*predict, "--engine", "eager"],
            "timm": contestant("timm_predict", photos.parent),
        }
        if there("fastai"):
            programs["fastai"] = contestant("fastai_predict", photos, given.folder)
        costs_table(in_turn(programs, given.repeat), of="tlkit", score="")
