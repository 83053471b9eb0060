"""Which photos to label next: a list, links and a page, and nothing by halves."""

import json
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner

import tlkit
from tlkit.ask import suggest as module
from tlkit.ask.choice import TIMES
from tlkit.cli import main
from tlkit.errors import FolderError, ImageError, OptionError, RunFolderError, TlkitError
from tlkit.testing import make_folder
from tlkit.train.bank import Extractor


@pytest.fixture(scope="module")
def head(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run


@pytest.fixture
def unlabelled(tmp_path):
    """Twelve photos, and one that cannot be read."""
    folder = make_folder(tmp_path / "new photos", ("a", "b", "c", "d"), per_class=3, seed=7)
    (folder / "a" / "broken.png").write_bytes(b"none")
    return folder


def test_the_list_the_links_the_page_and_the_numbers_agree(head, unlabelled, tmp_path):
    out = tmp_path / "next"
    found = tlkit.suggest(head, unlabelled, count=5, out=out)
    paths = [one.path for one in found.suggestions]
    assert len(set(paths)) == 5
    assert {one.name for one in out.iterdir()} == {
        "photos", "suggest.html", "suggest.json", "suggest.txt",
    }  # fmt: skip
    assert (out / "suggest.txt").read_text().splitlines() == [str(one) for one in paths]
    links = sorted((out / "photos").iterdir())
    assert all(one.is_symlink() for one in links)
    assert [one.resolve() for one in links] == [one.resolve() for one in paths]
    told = json.loads((out / "suggest.json").read_text())
    assert [one["path"] for one in told["suggestions"]] == [str(one) for one in paths]
    assert told["options"]["count"] == 5
    assert [one["path"] for one in told["unreadable"]] == [str(unlabelled / "a" / "broken.png")]
    page = (out / "suggest.html").read_text()
    assert page.count("<img") == 5
    assert all(one.name in page for one in paths)


def test_what_is_said_of_a_photo_is_what_the_head_says(head, unlabelled):
    found = tlkit.suggest(head, unlabelled, count=100)
    assert len(found.suggestions) == found.candidates == 12
    answers = {
        one.path: one for one in tlkit.load(head).predict(unlabelled) if hasattr(one, "label")
    }
    for one in found.suggestions:
        (label, first), (second, other) = answers[one.path].top(2)
        assert (one.label, one.second) == (label, second)
        assert [one.probability, one.second_probability] == pytest.approx([first, other], abs=0.01)
        assert one.margin == pytest.approx(one.probability - one.second_probability)
        assert 0 <= one.familiarity <= 1
    sure = np.array([one.probability for one in found.suggestions])
    assert found.expected.right == pytest.approx(sure.mean(), abs=1e-6)
    assert found.expected.spread == pytest.approx(np.sqrt((sure * (1 - sure)).sum()) / 12, abs=1e-6)
    assert found.expected_all == found.expected
    assert [one.path.name for one in found.bad] == ["broken.png"]


def test_a_head_is_less_sure_of_what_is_suggested(head, unlabelled):
    found = tlkit.suggest(head, unlabelled, count=2)
    assert found.candidates == 2 * TIMES
    assert found.expected.right <= found.expected_all.right + 1e-6


def test_what_is_labelled_is_reckoned_with(head, colours, unlabelled, tmp_path):
    own = tlkit.suggest(head, unlabelled, count=2)
    assert own.labelled == sum(1 for one in colours.rglob("*.*") if one.is_file())
    out = tmp_path / "next"
    others = make_folder(tmp_path / "labelled", per_class=3, seed=5)
    other = tlkit.suggest(head, unlabelled, count=2, labelled=others, out=out)
    assert other.labelled == 9
    told = json.loads((out / "suggest.json").read_text())
    assert told["labelled"] == 9
    assert "labelled photos" in told["method"]


def test_photos_that_have_a_label_are_not_suggested(head, colours, unlabelled):
    photos = [colours, unlabelled]
    found = tlkit.suggest(head, photos, count=100)
    assert len(found.suggestions) == 12
    assert all(unlabelled in one.path.parents for one in found.suggestions)
    with pytest.raises(FolderError, match="have a label already"):
        tlkit.suggest(head, colours)


def test_a_photo_with_the_longest_name_gets_a_link(head, unlabelled, tmp_path):
    name = "\N{GREEK SMALL LETTER ALPHA}" * 125 + ".png"
    first = sorted((unlabelled / "b").iterdir())[0]
    first.rename(first.with_name(name))
    found = tlkit.suggest(head, unlabelled, count=12, out=tmp_path / "next")
    links = sorted((tmp_path / "next" / "photos").iterdir())
    assert [one.resolve() for one in links] == [one.path.resolve() for one in found.suggestions]
    assert all(one.suffix == ".png" for one in links)


def test_a_head_without_its_photos_says_so(head, unlabelled, tmp_path):
    (tmp_path / "alone.safetensors").write_bytes((head / "head.safetensors").read_bytes())
    done = CliRunner().invoke(
        main, ["suggest", str(tmp_path / "alone.safetensors"), str(unlabelled), "-n", "2"]
    )
    assert "that the head was fitted on are not known" in done.stderr
    assert "--labelled" in done.stderr
    told = json.loads((tmp_path / "runs" / "new_photos-suggest" / "suggest.json").read_text())
    assert told["labelled"] == 0
    assert "k-means" in told["method"]


def test_a_folder_of_labelled_photos_that_is_not_there_is_an_error(head, unlabelled):
    with pytest.raises(FolderError):
        tlkit.suggest(head, unlabelled, count=2, labelled="nowhere")


def test_a_second_question_runs_no_network(head, unlabelled, monkeypatch):
    (unlabelled / "a" / "broken.png").unlink()
    first = tlkit.suggest(head, unlabelled, count=3)

    def started(self):
        raise AssertionError("something was computed again")

    monkeypatch.setattr(Extractor, "start", started)
    again = tlkit.suggest([head / "head.safetensors"], unlabelled, count=3)
    assert [one.path for one in again.suggestions] == [one.path for one in first.suggestions]


def test_photos_in_a_tar_file_are_copied(head, colours, tmp_path):
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "part.tar", "w") as tar:
        for one in sorted((colours / "red").iterdir()):
            tar.add(one, one.name)
    found = tlkit.suggest(head, tmp_path / "packed", count=2, out=tmp_path / "next")
    for one, place in zip(
        found.suggestions, sorted((tmp_path / "next" / "photos").iterdir()), strict=True
    ):
        assert not place.is_symlink()
        assert place.read_bytes() == (colours / "red" / one.path.name).read_bytes()


def test_where_no_links_can_be_made_photos_are_copied(head, unlabelled, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    found = tlkit.suggest(head, unlabelled, count=1, out=tmp_path / "next")
    (copy,) = (tmp_path / "next" / "photos").iterdir()
    assert copy.read_bytes() == found.suggestions[0].path.read_bytes()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"out": "taken"}, RunFolderError),
        ({"out": "new photos/next"}, RunFolderError),
        ({"count": 0}, OptionError),
        ({"number": 3}, OptionError),
        ({"paths": "empty"}, FolderError),
        ({"paths": "nowhere"}, FolderError),
        ({"paths": "new photos/a/broken.png"}, ImageError),
        ({"head": "nowhere"}, TlkitError),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(head, unlabelled, tmp_path, change, error):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    asked = {"head": head, "paths": unlabelled, "out": "next"} | change
    with pytest.raises(error):
        tlkit.suggest(asked.pop("head"), asked.pop("paths"), **asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_lists_some_and_names_what_cannot_be_read(head, unlabelled, monkeypatch):
    monkeypatch.setattr("tlkit.cli.suggest.MOST", 3)
    done = CliRunner().invoke(main, ["suggest", str(head), str(unlabelled), "-n", "5"])
    assert done.exit_code == 1, done.output
    assert "and 2 more" in done.stdout
    assert "list, links and page: runs/new_photos-suggest" in done.stdout
    assert "broken.png" in done.stderr
    assert "images that could not be read: 1" in done.stderr


def test_an_interrupted_command_leaves_nothing(head, unlabelled, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "page", interrupt)
    words = ["suggest", str(head), str(unlabelled), "--out", str(tmp_path / "next")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 130
    assert [one.name for one in tmp_path.iterdir()] == ["new photos"]
