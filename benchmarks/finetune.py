"""Finetune: one epoch of training every layer of a ResNet-18, tlkit and fastai.

    python benchmarks/finetune.py FOLDER [--epochs 1] [--repeat 3]

FOLDER has train and test. Both begin with random weights, in batches of 32, with random crops and
mirrors; the epoch ends with the test photos. `epoch_s` is the seconds of an epoch, without the
start of the process.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from measuring import contestant, costs_table, in_turn, there

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    programs = {"tlkit": contestant("tlkit_finetune", given.folder, given.epochs)}
    if there("fastai"):
        programs["fastai"] = contestant("fastai_finetune", given.folder, given.epochs)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TLKIT_CACHE"] = place
        costs_table(in_turn(programs, given.repeat), of="tlkit", score="epoch_s", form="{:.1f}")
