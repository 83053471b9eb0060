"""Every snippet of docs/ runs, in order, offline, and prints what the page shows."""

import shutil

import pytest
from click.testing import CliRunner
from pages import DOCS, PAGES, Reader, alike, snippets, thin

from tlkit.cli import main

pytestmark = pytest.mark.usefixtures("_one_thread")

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
    reader = Reader.at(tmp_path, monkeypatch)
    assert reader.follow(page) > 0
    reader.forget()


def test_numbers_may_differ_and_words_may_not():
    assert alike("accuracy   93.8 %\n...\n", "accuracy 70.0 %\nand more\n")
    assert alike("accuracy 93.8 %\n...\n", "accuracy 70.0 %\n")
    assert not alike("accuracy 93.8 %", "loss 70.0 %")
    assert not alike("accuracy 93.8 %", "accuracy 70.0 %\nand more\n")


@pytest.mark.parametrize(
    "text",
    [
        "```sh\ntlkit backbones no-such-net\n```\n",
        "```sh\ntlkit cache\n```\n\n```text\nsomething else\n```\n",
        "```text\nof nothing\n```\n",
        "```python\nassert False\n```\n",
        "<!-- exit status: 2 -->\n```sh\ntlkit cache\n```\n",
        "```fish\ntlkit cache\n```\n",
    ],
)
def test_a_page_that_says_something_wrong_fails(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError):
        Reader(home=tmp_path, site_packages=tmp_path / "site").follow(page)
