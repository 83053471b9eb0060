"""The site is built strictly, whole, and asks nobody: it can be read offline."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from pages import DOCS

import tlkit
from tlkit.card import Calibration, Card, WeightsCard


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a broken link, or a page that is in no menu, ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=DOCS.parent, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site):
    for page in DOCS.rglob("*.md"):
        html = (site / page.relative_to(DOCS).with_suffix(".html")).read_text()
        assert "<h1" in html


def test_no_page_takes_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*", page.read_text())
        far = [one for one in tags if re.search(r'(?:src|href)="?(?:https?:)?//', one)]
        assert far == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text())


def test_every_exported_name_is_explained(site):
    html = (site / "reference" / "python.html").read_text()
    for name in sorted({*tlkit.__all__} - {"__version__"}):
        assert f'id="tlkit.{name}"' in html, name


@pytest.mark.parametrize("record", [Card, WeightsCard, Calibration], ids=lambda one: one.__name__)
def test_every_key_of_a_card_is_explained(site, record):
    html = (site / "reference" / "head-file.html").read_text()
    for field in dataclasses.fields(record):
        assert f'id="tlkit.card.{record.__name__}.{field.name}"' in html, field.name
