"""A real browser, where one is installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """A headless Chromium: the first of `NAMES`, or playwright's own; else the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for one in NAMES if (found := shutil.which(one))), None)
    with sync_api.sync_playwright() as driver:
        try:
            # Its sandbox needs rights that a container lacks; the pages are the tests' own.
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        with contextlib.closing(browser):
            yield browser
