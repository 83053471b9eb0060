"""Fit: a head on a frozen network, tlkit and its peers on the same folder, whole processes.

    python benchmarks/fit.py FOLDER [--epochs 10] [--repeat 3] [--only NAME]...

FOLDER has train and test. The peers train for so many epochs; tlkit solves. The first fit of tlkit
begins with an empty cache, the second one finds the features of the first and fits another head.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from measuring import contestant, costs_table, in_turn, there

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--epochs", default="10")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", action="append", help="tlkit and this one, and so on")
    given = parser.parse_args()
    programs = {
        "tlkit": contestant("tlkit_fit", given.folder, "--bank", "none"),
        "tlkit, features found": contestant("tlkit_fit", given.folder, "--seed", "1"),
        "tlkit, two layers, features found": contestant(
            "tlkit_fit", given.folder, "--head", "mlp", "--augment", "none"
        ),
        "plain loop": contestant("loop", given.folder, given.epochs),
    }
    if there("fastai"):
        programs["fastai"] = contestant("fastai_fit", given.folder, given.epochs)
    if there("keras"):
        programs["Keras"] = contestant("keras_fit", given.folder, given.epochs)
    if there("transformers"):
        programs["Trainer"] = contestant("trainer", given.folder, given.epochs)
    if given.only:
        programs = {name: programs[name] for name in ("tlkit", *given.only)}
    with tempfile.TemporaryDirectory() as place:
        os.environ["TLKIT_CACHE"] = place
        if any("found" in name for name in programs):
            in_turn({"filling the cache": contestant("tlkit_fit", given.folder)}, 1)
        costs_table(in_turn(programs, given.repeat), of="tlkit")
