"""A real browser, where one is installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """A headless Chromium: playwright's own, or the first of `NAMES`; else the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as driver:
        path = driver.chromium.executable_path
        if not Path(path).exists():
            path = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            # Its sandbox needs rights that a container lacks; the pages are the tests' own.
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(
                f"no Chromium starts ({str(error).splitlines()[0]}): "
                "`playwright install chromium`, or install the system's"
            )
        with contextlib.closing(browser):
            yield browser
