"""Programs of a few lines, in a process of their own."""

from __future__ import annotations

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
