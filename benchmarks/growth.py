"""Growth: time and memory of fit and predict per photo, as the folder grows.

    python benchmarks/growth.py FOLDER [--sizes 1000,10000,100000]
        [--engine openvino] [--backbone NAME --weights FILE]

One engine for all sizes: `auto` has another for many photos, with another need of memory.

With a small network and a weight file of it, what is measured is tlkit and not the network. The
photos of FOLDER/train, repeated. Copies would be recognised and computed once, so each has a few
bytes of its own behind its end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

from measuring import run, table


def repeated(folder: Path, count: int, place: Path) -> Path:
    """A folder of class folders with so many files, all different."""
    classes = {one.name: sorted(one.iterdir()) for one in sorted(folder.iterdir()) if one.is_dir()}
    for name, files in classes.items():
        (place / name).mkdir(parents=True)
        for number, one in enumerate(
            itertools.islice(itertools.cycle(files), count // len(classes))
        ):
            data = one.read_bytes() + number.to_bytes(8, "little")
            (place / name / f"{number:07d}{one.suffix}").write_bytes(data)
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    given = parser.parse_args()
    rows = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            os.environ["TLKIT_CACHE"] = str(place / "cache")
            photos = repeated(given.folder / "train", size, place / "photos")
            tlkit = [sys.executable, "-m", "tlkit"]
            head = place / "head"
            network = ["--backbone", given.backbone, "--weights", given.weights]
            engine = ["--engine", given.engine]
            fit = run([*tlkit, "fit", photos, *network, *engine, "--out", head])
            out = place / "out.csv"
            own = ["--weights", given.weights] if Path(given.weights).is_file() else []
            predict = run([*tlkit, "predict", photos, "--head", head, "--out", out, *own, *engine])
        for what, cost in (("fit", fit), ("predict", predict)):
            rows.append(
                [
                    what, f"{size:,}", f"{cost.wall_s:.0f}", f"{1000 * cost.wall_s / size:.1f}",
                    f"{cost.peak_mb:,.0f}",
                ]
            )  # fmt: skip
            print(rows[-1], file=sys.stderr)
    table(["", "photos", "seconds", "ms per photo", "peak MB"], sorted(rows))
