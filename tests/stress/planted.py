"""Planted: what was hidden in a folder of photos, and how much of it `tlkit check` finds.

    python tests/stress/planted.py PHOTOS [--seed 0]

PHOTOS has train and test with class folders. To a copy of them (by links) are added 50 exact
duplicates, 50 re-encoded or scaled ones and 20 test photos in train; 20 photos change their class.
The labels are judged by a cross-validation of five folds on the default backbone, after the copies
were moved away. Prints what was found; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

from PIL import Image

import tlkit
from tlkit import checking


def linked(folder: Path, place: Path) -> list[str]:
    """The photos of a folder, by links; their names."""
    names = []
    for photo in sorted(folder.rglob("*.jpg")):
        name = photo.relative_to(folder)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(photo.resolve())
        names.append(name.as_posix())
    return names


def changed(photo: Path, to: Path, rng: random.Random) -> None:
    """The same picture in another file: scaled, or encoded more coarsely, or both."""
    image = Image.open(photo).convert("RGB")
    if rng.random() < 0.5:
        share = rng.uniform(0.3, 0.95)
        image = image.resize((round(image.width * share), round(image.height * share)))
    image.save(to, quality=rng.randint(30, 90))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "photos"
        train = linked(given.photos / "train", place / "train")
        test = linked(given.photos / "test", place / "test")
        before = [set(one.files) for one in tlkit.check(place, only="duplicate,leak").findings]
        exact, near, leaks = {}, {}, {}
        chosen = rng.sample(train, 120)
        for number, one in enumerate(chosen[:50]):
            exact[f"train/{Path(one).parent}/exact{number}.jpg"] = f"train/{one}"
        for number, one in enumerate(chosen[50:100]):
            near[f"train/{Path(one).parent}/near{number}.jpg"] = f"train/{one}"
        for number, one in enumerate(rng.sample(test, 20)):
            leaks[f"train/{Path(one).parent}/leak{number}.jpg"] = f"test/{one}"
        for copy, source in (exact | leaks).items():
            shutil.copyfile(place / source, place / copy)
        for copy, source in near.items():
            changed(place / source, place / copy, rng)
        classes = sorted(one.name for one in (place / "train").iterdir())
        swapped = set()
        for number, one in enumerate(chosen[100:]):
            other = rng.choice([each for each in classes if each != Path(one).parent.name])
            to = f"train/{other}/swap{number}.jpg"
            (place / "train" / one).rename(place / to)
            swapped.add(to)
        found = tlkit.check(place, only="duplicate,leak,conflict")
        groups = [set(one.files) for one in found.findings]
        hits = {
            kind: sum(
                any({copy, source} <= group for group in groups) for copy, source in planted.items()
            )
            for kind, planted in (("exact", exact), ("near", near), ("leaks", leaks))
        }
        planted = {*exact, *near, *leaks}
        false = [group for group in groups if not group & planted and group not in before]
        checking.fix(found)
        tlkit.fit(place / "train", folds=5, out=Path(name) / "run", seed=given.seed)
        doubted = tlkit.check(place, labels=str(Path(name) / "run"), only="label").findings
        first = [one.files[0] for one in doubted[:40]]
    print(
        json.dumps(
            {
                "exact, of 50": hits["exact"],
                "near, of 50": hits["near"],
                "leaks, of 20": hits["leaks"],
                "groups that were not planted": len(false),
                "label swaps among the first 40, of 20": len(swapped & set(first)),
                "doubted": len(doubted),
            },
            indent=2,
        )
    )
