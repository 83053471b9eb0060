"""Programs of a few lines, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_python(code: str, *words: object, where: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` with these words behind it in sys.argv, in that folder."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=where,
        check=False,
    )


def run_together(
    program: Path, count: int, *words: object, site: Path, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program in so many processes that know of each other, as torchrun does.

    What is installed in `site` they find too.
    """
    path = os.pathsep.join([str(site), *sys.path])
    return subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={count}", f"--max-restarts={restarts}", program, *map(str, words),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )  # fmt: skip
