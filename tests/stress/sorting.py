"""Sorting: processes that are killed while they sort photos, or take them back, lose none.

    python tests/stress/sorting.py [--count 100] [--seed 0] [--other /dev/shm] [--by move]

A folder of photos is sorted by a head, by `tlkit.sort`, in a process that is killed with SIGKILL
after a random while: before its first photo, between two, or in the middle of one. Then the same is
done again, or it is taken back, in a process that may be killed too, until both have ended once.
Every second round is across to another file system (--other). After each kill every photo must be
there, exactly once among the names that are not hidden; on one file system that holds at every
moment, across two a photo may be there twice until the next process has mended it. At the end of a
round the photos are as they were, by path and by digest of content. Prints what it found, and ends
with status 1 if anything was lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import tlkit
import tlkit.sorting  # so that a fork begins at once
from tlkit.testing import make_folder

SIZE_BYTES = 400_000
"""Of a photo: copies that take long enough to be killed in their middle."""


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            work()
            os._exit(0)
        except BaseException:
            os._exit(3)
    return child


def run(work: Callable[[], object], seconds: float | None) -> bool:
    """Whether it was killed; waits for it where `seconds` is None."""
    child = forked(work)
    if seconds is not None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, f"it ended with {status}"
                return False
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, f"it ended with {status}"
    return killed


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file that has a visible name; what a link leads to is the photo's own."""
    return {
        one.relative_to(folder).as_posix(): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in folder.rglob("*")
        if one.is_file()
        and not one.is_symlink()
        and not one.name.startswith(".")
        and one.suffix == ".jpg"
    }


def make_photos(where: Path, rng: random.Random) -> dict[str, str]:
    """Photos, each with a content of its own: what is behind a JPEG's end is not looked at."""
    made = make_folder(where / "made", per_class=20, size=(96, 80))
    photos = where / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(made.rglob("*.*"))):
        from PIL import Image

        place = photos / f"{number % 3}" / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.open(path).convert("RGB").save(place)
        with place.open("ab") as file:
            file.write(rng.randbytes(SIZE_BYTES))
    shutil.rmtree(made)
    return contents(photos)


class Round:
    """Photos sorted and taken back, with kills on the way."""

    def __init__(self, head: Path, where: Path, out: Path, by: str, rng: random.Random) -> None:
        self.head, self.photos, self.out, self.by, self.rng = head, where / "photos", out, by, rng
        self.across = os.stat(where).st_dev != os.stat(out.parent).st_dev
        self.before = make_photos(where, rng)
        self.wrong: list[str] = []
        self.twice = self.half = 0

    def sort(self) -> None:
        tlkit.sort(self.head, self.photos, into=self.out, by=self.by, reject_unlike="0")

    def unsort(self) -> None:
        if self.out.exists():
            left = tlkit.unsort(self.out)
            if left:
                os._exit(4)

    def look(self, moment: str) -> None:
        photos = contents(self.photos)
        there = contents(self.out) if self.out.exists() else {}
        found = Counter([*photos.values(), *there.values()])
        lost = set(self.before.values()) - set(found)
        if lost:
            self.wrong.append(f"{moment}: {len(lost)} lost")
        if self.by != "move":
            if photos != self.before:
                self.wrong.append(f"{moment}: photos were touched")
            return
        twice = sum(count > 1 for count in found.values())
        self.twice += twice
        if twice > (1 if self.across else 0):
            self.wrong.append(f"{moment}: {twice} there twice")
        if set(found) - set(self.before.values()):
            self.half += 1
            self.wrong.append(f"{moment}: a file that is none of the photos")

    def go(self, most: int, usual_s: float) -> int:
        """Kills in this round, at most so many."""
        kills, sorting, ended = 0, True, 0
        while ended < 2:
            may = kills < most
            work = self.sort if sorting else self.unsort
            took = usual_s if sorting else usual_s / 10
            killed = run(work, self.rng.uniform(0, took) if may else None)
            kills += killed
            self.look(f"kill {kills}" if killed else "end")
            if killed:
                sorting = self.rng.random() < (0.75 if sorting else 0.25)
            elif sorting:
                sorting, ended = False, ended + 1
            else:
                sorting, ended = True, ended + 1 if ended else 0
        if self.out.exists():
            run(self.unsort, None)
        if contents(self.photos) != self.before:
            self.wrong.append("the photos are not as they were")
        if self.out.exists():
            self.wrong.append("something is left")
        return kills


def main(count: int, seed: int, other: Path, by: str, place: Path) -> int:
    rng = random.Random(seed)
    os.environ["TLKIT_CACHE"] = str(place / "cache")

    def fit() -> None:
        small = make_folder(place / "small")
        tlkit.fit(small, backbone="resnet20", weights="none", freeze="features",
                  out=place / "run", epochs=1)  # fmt: skip

    # In a process of its own: threads of torch do not survive a fork.
    run(fit, None)
    head = place / "run" / "head.safetensors"
    far = Path(tempfile.mkdtemp(prefix="tlkit-sorting-", dir=other))
    kills, rounds, wrong, twice, across = 0, 0, [], 0, 0
    began, usual_s = time.monotonic(), 3.0
    try:
        while kills < count:
            where = place / f"{rounds}"
            where.mkdir()
            out = (far if rounds % 2 else where) / "out"
            one = Round(head, where, out, by, rng)
            started = time.monotonic()
            if rounds < 2:  # how long it takes without a kill
                run(one.sort, None)
                usual_s = time.monotonic() - started
                run(one.unsort, None)
            found = one.go(min(12, count - kills), usual_s)
            kills, rounds, wrong, twice = (
                kills + found, rounds + 1, wrong + one.wrong, twice + one.twice
            )  # fmt: skip
            across += one.across
            print(f"round {rounds}: {found} kills, across: {one.across}, "
                  f"{one.wrong or 'all there'}", flush=True)  # fmt: skip
            shutil.rmtree(where)
    finally:
        shutil.rmtree(far, ignore_errors=True)
    told = {
        "by": by, "kills": kills, "rounds": rounds, "across two file systems": across,
        "photos": 60, "twice until mended": twice, "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(told))
    return bool(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--by", choices=("link", "copy", "move"), default="move")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(given.count, given.seed, given.other, given.by, Path(name)))
