"""A distribution `tlkit-tiny` with the backbone `tiny`, found as real ones are."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def install(site: Path) -> None:
    """Write its metadata into a folder, and look for packages there from now on."""
    info = site / "tlkit_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tlkit-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tlkit.backbones]\ntiny = tlkit.testing:TINY\n")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
