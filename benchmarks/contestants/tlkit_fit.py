"""tlkit from the command line; the scores are those of its own metrics.json."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tlkit.cli import main

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        main(["fit", sys.argv[1], "--out", str(run), *sys.argv[2:]], standalone_mode=False)
        scores = json.loads((run / "metrics.json").read_text())
    print(json.dumps({"accuracy": scores["test"]["accuracy"]}))
