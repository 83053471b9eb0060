"""Sorting: photos into class folders, and back."""

import json

import pytest
from click.testing import CliRunner

import tlkit
from tlkit import checking, sorting
from tlkit.cli import main
from tlkit.errors import FolderError, OptionError, RunFolderError
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


def journal_of(out):
    head, *lines = (out / "undo.jsonl").read_text().splitlines()
    return json.loads(head), [json.loads(line) for line in lines]


def write_journal(out, head, lines):
    text = "".join(json.dumps(record) + "\n" for record in (head, *lines))
    (out / "undo.jsonl").write_text(text)


def test_a_journal_that_names_another_folder_moves_nothing_there(head, photos, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tlkit.sort(head, photos, into=out, by="move")
    first, lines = journal_of(out)
    before = bytes_below(out)
    for changed in ({"photos": str(elsewhere)}, {"signature": ""}, {"photos": f"{photos}/."}):
        write_journal(out, {**first, **changed}, lines)
        with pytest.raises(FolderError, match="you have not named"):
            tlkit.unsort(out)
        back = CliRunner().invoke(main, ["sort", "--undo", str(out)])
        assert back.exit_code == 2
        assert "--into FOLDER" in back.output
    assert list(elsewhere.iterdir()) == []
    assert bytes_below(out).keys() == before.keys()


def test_moves_of_another_machine_go_back_to_the_folder_that_is_named(
    head, photos, tmp_path, monkeypatch
):
    before = bytes_below(photos)
    tlkit.sort(head, photos, into=tmp_path / "out", by="move")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "another"))
    words = ["sort", "--undo", str(tmp_path / "out")]
    assert CliRunner().invoke(main, words).exit_code == 2
    assert CliRunner().invoke(main, [*words, "--into", str(photos)]).exit_code == 0
    assert bytes_below(photos) == before


@pytest.mark.parametrize("by", ["link", "copy", "move"])
def test_a_link_in_the_place_of_a_class_folder_leads_nothing_out(head, photos, tmp_path, by):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    tlkit.sort(head, photos, into=out, by=by, reject_below="0", reject_unlike="0")
    (out / "cat").rename(elsewhere)
    (out / "cat").symlink_to(elsewhere)
    before = bytes_below(elsewhere)
    assert len(tlkit.unsort(out)) == 4
    assert bytes_below(elsewhere) == before


def test_a_folder_of_photos_that_became_a_link_gets_nothing(head, photos, tmp_path):
    tlkit.sort(head, photos, into=tmp_path / "out", by="move")
    (photos / "dog").rename(tmp_path / "elsewhere")
    (photos / "dog").symlink_to(tmp_path / "elsewhere")
    assert len(tlkit.unsort(tmp_path / "out")) == 4
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_into_is_refused_where_nothing_was_moved(head, photos, tmp_path):
    tlkit.sort(head, photos, into=tmp_path / "out")
    with pytest.raises(OptionError, match="were not moved"):
        tlkit.unsort(tmp_path / "out", into=photos)


def test_two_sorts_of_one_source_or_into_one_folder_are_refused(head, photos, tmp_path):
    for into, source in (("out", photos), ("other", photos), ("other", photos / "cat")):
        first = tlkit.sort_events(head, photos, tlkit.SortOptions(by="move"), into=tmp_path / "out")
        while next(first).what != "sorting":
            pass
        with pytest.raises(RunFolderError, match="in use"):
            tlkit.sort(head, source, into=tmp_path / into, by="move")
        with pytest.raises(RunFolderError, match="in use"):
            tlkit.unsort(tmp_path / "out")
        first.close()
        assert not (tmp_path / "other").exists()
    assert tlkit.sort(head, photos, into=tmp_path / "out", by="move").count == 8
    assert tlkit.unsort(tmp_path / "out") == ()


def test_a_sort_that_begins_while_another_ends_reports_no_photo_as_unreadable(
    head, photos, tmp_path, monkeypatch
):
    (photos / "cat" / "broken.png").unlink()
    settle, options = sorting.settle, {"into": tmp_path / "out", "by": "move"}
    others = []

    def meanwhile(*args):
        if not others:  # the other one does all of its work while this one loads its head
            others.append(None)
            others[0] = tlkit.sort(head, photos, **options)
        return (yield from settle(*args))

    monkeypatch.setattr(sorting, "settle", meanwhile)
    result = tlkit.sort(head, photos, **options)
    assert (result.count, result.unreadable, result.left) == (8, (), ())


def test_a_photo_that_was_exchanged_and_returned_while_it_was_looked_at_stays(
    head, photos, tmp_path, monkeypatch
):
    (photos / "cat" / "broken.png").unlink()
    path = sorted((photos / "cat").iterdir())[0]
    read, before = sorting.read, path.read_bytes()

    def exchanged(this, **options):
        if this != path:
            return read(this, **options)
        path.rename(tmp_path / "away")
        path.write_bytes(next((photos / "dog").iterdir()).read_bytes())
        pixels = read(this, **options)
        (tmp_path / "away").replace(path)
        return pixels

    monkeypatch.setattr(sorting, "read", exchanged)
    (left,) = tlkit.sort(head, photos, into=tmp_path / "out", by="move").left
    assert (left.file, path.read_bytes()) == (f"cat/{path.name}", before)


@pytest.mark.parametrize("path", ["", b"", "  "])
def test_an_empty_path_is_not_the_current_folder(head, photos, tmp_path, monkeypatch, path):
    monkeypatch.chdir(photos)
    before = bytes_below(photos)
    for action in (
        lambda: tlkit.sort(head, path, into=tmp_path / "out", by="move"),
        lambda: tlkit.sort(head, photos, into=path),
        lambda: tlkit.unsort(path),
        lambda: tlkit.check(path),
        lambda: checking.undo(path),
    ):
        with pytest.raises(OptionError, match="is empty"):
            action()
    assert bytes_below(photos) == before


@pytest.mark.parametrize(
    "action",
    [
        lambda: tlkit.fit(""),
        lambda: tlkit.fit("folder", out=" "),
        lambda: tlkit.load(""),
        lambda: tlkit.find_lr(""),
        lambda: tlkit.write_report(""),
        lambda: tlkit.features("", out="out"),
        lambda: tlkit.search(""),
        lambda: tlkit.compare(["", ""]),
        lambda: tlkit.suggest("", "folder"),
        lambda: tlkit.similar("a.jpg", ""),
        lambda: tlkit.similar("", "folder"),
    ],
)
def test_no_function_takes_an_empty_path_for_the_current_folder(action, tmp_path):
    with pytest.raises(OptionError, match="is empty"):
        action()
    assert list(tmp_path.iterdir()) == []
