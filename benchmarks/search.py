"""Does `tlkit search` name a backbone as good as the best of all?

The folder's photos are shared out anew for every seed but the first, which takes its own train and
test part. The search sees the training photos alone; then every candidate is fitted on all of them
and judged on the test part, which the search has not seen. Random networks are among the
candidates as controls.

    python benchmarks/search.py hymenoptera --seeds 3 --time 5m
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import tlkit
from tlkit.data.folder import scan_parts

REAL = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
CONTROLS = (
    "resnet18", "timm/mobilenetv3_small_050", "resnet20", "densenet40", "vgg_small",
    "inception_small",
)  # fmt: skip


def shared_out(folder: Path, seed: int, place: Path) -> Path:
    """Links to all photos of a folder, in parts as large as its own, drawn by the seed."""
    parts = scan_parts(folder)
    assert parts.test is not None
    for label, name in enumerate(parts.train.classes):
        own = [one for part in (parts.train, parts.test) for one in part.paths
               if one.parent.name == name]  # fmt: skip
        count = int(parts.train.counts[label])
        order = np.random.default_rng([seed, label]).permutation(len(own))
        for number, at in enumerate(order):
            part = "train" if number < count else "test"
            link = place / part / name / f"{own[at].parent.parent.name}-{own[at].name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(own[at].resolve())
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time", default="5m")
    given = parser.parse_args()
    names = ",".join([*REAL, *(f"{one}=none" for one in CONTROLS)])
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as home:
            os.environ["TLKIT_CACHE"] = f"{home}/cache"
            folder = shared_out(given.folder, seed, Path(home) / "photos") if seed else given.folder
            began = time.perf_counter()
            found = tlkit.search(folder, backbone=names, time=given.time, seed=seed)
            took = time.perf_counter() - began
            for one in found.tried:
                score = one.score
                print(
                    f"seed {seed} search: {one.label:32} {score.photos:4} photos "
                    f"{score.accuracy:7.1%} ± {score.fold_std:.1%} "
                    f"{one.images_per_second:6.0f}/s {score.pool},{score.head} {one.outcome}"
                )
            for each in found.not_tried:
                print(f"seed {seed} not tried: {each.name}: {each.why}")
            tests = {}
            for one in (*REAL, *CONTROLS):
                weights = "default" if one in REAL else "none"
                fitted = tlkit.fit(
                    folder,
                    backbone=one,
                    weights=weights,
                    freeze="features",
                    seed=seed,
                    out=f"{home}/{one.replace('/', '-')}",
                )
                tests[one] = fitted.test.accuracy
                print(f"seed {seed} fit: {one:32} test {tests[one]:.1%}", flush=True)
            chosen = tlkit.fit(folder, seed=seed, out=f"{home}/chosen", **found.changes)
            best = max(tests, key=lambda one: tests[one])
            told = found.judged
            print(
                f"seed {seed}: {found.best.label} {found.changes} in {took:.0f} s; "
                f"judged {told.accuracy:.1%} ({told.accuracy_low:.1%} to "
                f"{told.accuracy_high:.1%}) of {told.images}; on test: plain "
                f"{tests[found.best.name]:.1%}, as found {chosen.test.accuracy:.1%}; best of "
                f"all {best} {tests[best]:.1%}; {found.reason}",
                flush=True,
            )


if __name__ == "__main__":
    main()
