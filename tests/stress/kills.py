"""Kills: fits killed at random moments and resumed end with the bits of an undisturbed one.

    python tests/stress/kills.py [--count 100] [--seed 0]

A probe and a fine-tune in turn, each a process of its own, killed without warning (SIGKILL) again
and again until it ends by itself. Prints what it found, and ends with status 1 if anything differs
or cannot be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from tlkit.testing import make_folder

FITS = {
    "probe": ["--head", "mlp", "--hidden", "16", "--augment", "none", "--epochs", "60"],
    "fine-tune": ["--freeze", "none", "--strategy", "finetune", "--epochs", "6", "--ema", "0.9"],
}

# Checkpoints after every step, where a user's fit writes one a minute.
PROGRAM = """
import tlkit.train.checkpoint as checkpoint
checkpoint.EVERY_S, checkpoint.SHARE = 0.0, 1e9
from tlkit.cli import run
run()
"""


def digest(run: Path) -> str:
    """Of the tensors: the card has the time of day."""
    made = hashlib.sha256()
    for name, one in sorted(load_file(run / "head.safetensors").items()):
        made.update(name.encode() + one.tobytes())
    return made.hexdigest()


def command(photos: Path, run: Path, words: list[str]) -> list[str]:
    return [
        sys.executable, "-c", PROGRAM, "fit", str(photos), "--backbone", "resnet20",
        "--weights", "none", "--batch", "8", "--out", str(run), "--resume", *words,
    ]  # fmt: skip


def killed_until_done(words: list[str], longest_s: float, rng: random.Random) -> tuple[int, bool]:
    """Run a command again and again, each time for a random while; how often it was killed, and
    whether it went on at last from a checkpoint.
    """
    kills = 0
    while True:
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            # Later each time, so that it comes to an end.
            _, said = process.communicate(timeout=rng.uniform(0, longest_s * (1 + kills / 8)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        if process.returncode:
            sys.exit(f"status {process.returncode} after {kills} kills: {said}")
        return kills, "goes on from" in said


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    total, wrong, resumed = 0, 0, {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        photos = make_folder(place / "photos", per_class=16, size=(40, 36))
        expected, longest = {}, {}
        for kind, words in FITS.items():
            os.environ["TLKIT_CACHE"] = str(place / f"cache-whole-{kind}")
            began = time.perf_counter()
            subprocess.run(command(photos, place / kind, words), check=True, capture_output=True)
            longest[kind] = time.perf_counter() - began
            expected[kind] = digest(place / kind)
        number = 0
        while total < given.count:
            number += 1
            for kind, words in FITS.items():
                run = place / f"{kind}-{number}"
                os.environ["TLKIT_CACHE"] = str(place / f"cache-{kind}-{number}")
                kills, on = killed_until_done(command(photos, run, words), longest[kind], rng)
                total += kills
                resumed[kind] = resumed.get(kind, 0) + on
                same = digest(run) == expected[kind]
                wrong += not same
                left = [one.name for one in place.iterdir() if one.name.startswith(f".{run.name}")]
                wrong += bool(left)
                print(f"{kind} {number}: {kills} kills, {'same' if same else 'OTHER'} {left or ''}")
    print(json.dumps({"kills": total, "wrong": wrong, "ended from a checkpoint": resumed}))
    # In a long run both kinds have: where none had, fits would begin anew and end with the same.
    sys.exit(bool(wrong) or (given.count >= 50 and not all(resumed.values())))
