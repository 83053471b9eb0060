"""Every snippet of docs/ runs, in order, offline, and prints what the page shows."""

import shutil
import sys

import pytest
from click.testing import CliRunner
from pages import DOCS, PAGES, Reader, snippets, thin

from tlkit.cli import main

WITH_SNIPPETS = [page for page in PAGES if snippets(page)]


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """What a reader of the tutorial has: the sample's folder, a run on it, and the features."""
    place = tmp_path_factory.mktemp("tutorial")
    for words in (
        ("sample", "digits", f"{place}/digits"),
        ("fit", f"{place}/digits", "--out", f"{place}/runs/digits-efficientnet_lite0"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TLKIT_CACHE", str(place / "cache"))
            done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        if words[0] == "sample":
            thin(place / "digits")
    return place


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_can_be_followed(page, tutorial, tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_CACHE", str(tutorial / "cache"))
    if page.parent.name == "howto":
        for one in ("digits", "runs"):
            shutil.copytree(tutorial / one, tmp_path / one)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    reader = Reader(home=tmp_path, site_packages=tmp_path.parent / f"{tmp_path.name}-site")
    assert reader.follow(page) > 0
    reader.forget()
