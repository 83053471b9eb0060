"""tlkit: every layer of a ResNet-18 from random weights, the test part as validation."""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tlkit.cli import main

if __name__ == "__main__":
    folder, epochs = Path(sys.argv[1]).resolve(), sys.argv[2]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "photos").mkdir()
        os.symlink(folder / "train", Path(place) / "photos" / "train")
        os.symlink(folder / "test", Path(place) / "photos" / "val")
        run = Path(place) / "run"
        main(
            [
                "fit", f"{place}/photos", "--backbone", "resnet18", "--weights", "none",
                "--freeze", "none", "--epochs", epochs, "--batch", "32", "--augment", "standard",
                "--out", str(run), *sys.argv[3:],
            ],
            standalone_mode=False,
        )  # fmt: skip
        with (run / "history.csv").open() as file:
            seconds = [float(row["wall_s"]) for row in csv.DictReader(file)]
    print(json.dumps({"epoch_s": statistics.median(seconds)}))
