"""Sorting: photos into class folders, and back."""

import json

import pytest
from click.testing import CliRunner

import tlkit
from tlkit.cli import main
from tlkit.errors import FolderError, OptionError
from tlkit.sorting import folders_of
from tlkit.testing import make_folder


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("learnt"), ("cat", "dog"), per_class=12)
    return tlkit.fit(folder, backbone="tiny", out=tmp_path_factory.mktemp("fit") / "run").run


@pytest.fixture
def photos(tmp_path):
    """Photos of both classes, two of one name, and a file that is none."""
    place = make_folder(tmp_path / "photos", ("cat", "dog"), per_class=4)
    (place / "cat" / "broken.png").write_bytes(b"no image")
    return place


def bytes_below(folder):
    """The content of every file, links followed, by its path."""
    return {
        one.relative_to(folder).as_posix(): one.read_bytes()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


@pytest.mark.parametrize("by", ["link", "copy", "move"])
def test_every_photo_is_in_the_folder_of_its_class_and_comes_back(head, photos, tmp_path, by):
    before, out = bytes_below(photos), tmp_path / "out"
    answers = {
        one.path: one.label for one in tlkit.load(head).predict(photos) if hasattr(one, "label")
    }
    result = tlkit.sort(head, photos, into=out, by=by, reject_below="0", reject_unlike="0")
    assert result.count == len(answers) == 8
    assert [one.path.name for one in result.unreadable] == ["broken.png"]
    for path, label in answers.items():
        name = path.relative_to(photos)
        assert (out / label / name).read_bytes() == before[name.as_posix()]
        assert (out / label / name).is_symlink() == (by == "link")
    left = bytes_below(photos)
    assert left == (before if by != "move" else {"cat/broken.png": b"no image"})
    assert tlkit.unsort(out) == ()
    assert bytes_below(photos) == before
    assert not out.exists()


def test_what_is_not_likely_enough_goes_into_unsure(head, photos, tmp_path):
    result = tlkit.sort(head, photos, into=tmp_path / "out", reject_below="1")
    sure = sum(one.probabilities.max() >= 1 for one in tlkit.load(head).predict(photos / "dog"))
    assert result.piles[-1].folder == "_unsure"
    assert result.piles[-1].photos >= 4 - sure
    assert result.unsure == result.piles[-1].photos / result.count
    told = json.loads((tmp_path / "out" / "sorted.json").read_text())
    assert told["unsure"] == result.unsure


def test_the_same_command_again_changes_nothing(head, photos, tmp_path):
    first = tlkit.sort(head, photos, into=tmp_path / "out")
    before = bytes_below(tmp_path / "out")
    again = tlkit.sort(head, photos, into=tmp_path / "out")
    assert again.piles == first.piles
    assert bytes_below(tmp_path / "out") == before


@pytest.mark.parametrize("by", ["link", "copy", "move"])
def test_a_sort_that_was_stopped_behind_the_last_photo_goes_on(head, photos, tmp_path, by):
    (photos / "cat" / "broken.png").unlink()
    options = {"into": tmp_path / "out", "by": by}
    tlkit.sort(head, photos, **options)
    sorted_json = tmp_path / "out" / "sorted.json"
    before, there = sorted_json.read_bytes(), bytes_below(tmp_path / "out")
    sorted_json.unlink()
    assert tlkit.sort(head, photos, **options).count == 8
    assert sorted_json.read_bytes() == before
    assert bytes_below(tmp_path / "out") == there


def test_one_folder_inside_the_other_is_refused(head, photos):
    with pytest.raises(FolderError, match="inside the other"):
        tlkit.sort(head, photos, into=photos / "out")


def test_an_option_that_is_no_number_is_refused(head, photos, tmp_path):
    with pytest.raises(OptionError, match="--reject-unlike much"):
        tlkit.sort(head, photos, into=tmp_path / "out", reject_unlike="much")


def test_class_folders_have_names_of_their_own_on_every_file_system():
    found = folders_of(("Cat", "cat", "_unsure", "a/b", "..", "sorted.json"))
    assert len({one.casefold() for one in found.values()} | {"_unsure"}) == 7
    assert not any("/" in one or one.startswith(".") for one in found.values())


def test_the_command_says_what_stays_and_takes_it_back(head, photos, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["sort", str(head), str(photos), "--into", str(out)])
    assert done.exit_code == 1
    assert "linked 8 photos" in done.output
    assert "broken.png" in done.output
    back = CliRunner().invoke(main, ["sort", "--undo", str(out)])
    assert back.exit_code == 0
    assert "as they were before" in back.output


def test_the_command_says_what_is_missing(head):
    found = CliRunner().invoke(main, ["sort", str(head)])
    assert found.exit_code == 2
    assert "no PHOTOS" in found.output
