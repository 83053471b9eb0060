"""Sorting: each photo lies where the head says, and can be taken back."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import replace

import pytest

import tlkit
from tlkit.data.placing import Left
from tlkit.errors import FolderError, HeadFileError, OptionError, RunFolderError
from tlkit.options import SortOptions
from tlkit.sorting import SUMMARY, UNSURE, folders_of, sort_events
from tlkit.testing import make_folder

PLAIN = {"reject_below": "0", "reject_unlike": "0"}


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    return tlkit.fit(colours, backbone="tiny", out=tmp_path_factory.mktemp("sort") / "run").run


@pytest.fixture
def photos(tmp_path):
    """Six photos in folders, beside each other, and one that is none."""
    made = make_folder(tmp_path / "made", per_class=2)
    place = tmp_path / "photos"
    for number, path in enumerate(sorted(made.rglob("*.*"))):
        target = place / ("trip" if number % 2 else "") / f"{path.parent.name}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (place / "bad.jpg").write_bytes(b"not an image")
    return place


def names(folder):
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.*"))


def test_photos_lie_in_the_folder_of_the_class_that_predict_says(run, photos, tmp_path):
    before = names(photos)
    found = tlkit.sort(run, photos, into=tmp_path / "out", **PLAIN)
    told = {
        one.path.relative_to(photos).as_posix(): one
        for one in tlkit.load(run).predict(photos)
        if isinstance(one, tlkit.Prediction)
    }
    assert len(told) == 6
    for file, one in told.items():
        link = tmp_path / "out" / one.label / file
        assert link.is_symlink()
        assert os.readlink(link) == str(photos / file)
    assert names(photos) == before
    assert found.count == 6
    assert found.unsure == 0
    wrong = sum(1 - one.probabilities.max() for one in told.values())
    assert found.wrong == pytest.approx(wrong)
    assert found.wrong_95[0] <= found.wrong <= found.wrong_95[1]
    assert [one.path.name for one in found.unreadable] == ["bad.jpg"]
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert summary["sorted"] == 6
    assert {one["folder"]: one["photos"] for one in summary["folders"]} == {
        one.folder: one.photos for one in found.piles
    }
    assert tlkit.unsort(tmp_path / "out") == ()
    assert not (tmp_path / "out").exists()
    assert names(photos) == before


def test_those_that_are_not_believed_are_unsure(run, photos, tmp_path):
    found = tlkit.sort(
        run, photos, into=tmp_path / "out", by="copy", reject_below="1", reject_unlike="0"
    )
    assert found.unsure == 1
    assert found.likely == 1
    assert found.wrong == 0
    assert len(names(tmp_path / "out" / UNSURE)) == 6


def test_by_default_a_precision_and_the_strange_are_minded(run, photos, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48), (255, 255, 255)).save(photos / "white.png")
    calibration = tlkit.load(run).card.calibration
    found = tlkit.sort(run, photos, into=tmp_path / "out")
    assert found.familiar == 0.005
    best = max(share for _, share in calibration.thresholds)
    assert found.likely == next(
        one for one, share in calibration.thresholds if share >= min(0.99, best)
    )
    assert (tmp_path / "out" / UNSURE / "white.png").exists()


def test_several_heads_have_a_default_too(run, photos, tmp_path):
    found = tlkit.sort([run, run], photos, into=tmp_path / "out")
    assert found.likely == 0.9


def test_after_a_stop_it_goes_on_and_counts_all(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tlkit.sorting.AT_ONCE", 2)
    out = tmp_path / "out"
    whole = tlkit.sort(run, photos, into=tmp_path / "whole", by="copy", **PLAIN)
    steps = sort_events(run, photos, SortOptions(by="move", **PLAIN), into=out)
    while next(steps).done < 4:
        pass
    steps.close()
    left = len(names(photos))
    assert 0 < left < 7
    found = tlkit.sort(run, photos, into=out, by="move", **PLAIN)
    assert [replace(one, probability=None, wrong=None) for one in found.piles] == [
        replace(one, probability=None, wrong=None) for one in whole.piles
    ]
    assert found.wrong == pytest.approx(whole.wrong)
    assert names(photos) == ["bad.jpg"]
    assert tlkit.unsort(out) == ()
    assert len(names(photos)) == 7


def test_new_photos_are_added_by_the_same_command_and_another_is_refused(run, photos, tmp_path):
    out = tmp_path / "out"
    tlkit.sort(run, photos, into=out, **PLAIN)
    extra = next((tmp_path / "photos").glob("red*"))
    (photos / f"new{extra.suffix}").write_bytes(extra.read_bytes())
    assert tlkit.sort(run, photos, into=out, **PLAIN).count == 7
    for changed in ({"by": "move"}, {"reject_below": "0.9"}, {"tta": "mirror"}):
        with pytest.raises(RunFolderError, match="in another way"):
            tlkit.sort(run, photos, into=out, **{**PLAIN, **changed})


def test_one_folder_inside_the_other_is_refused(run, photos, tmp_path):
    (tmp_path / "alias").symlink_to(photos)
    for into in (photos, photos / "out", photos.parent, tmp_path / "alias" / "out"):
        with pytest.raises(FolderError, match="one inside the other"):
            tlkit.sort(run, photos, into=into)


def test_links_are_not_moved_and_what_they_lead_to_is_moved_once(run, photos, tmp_path):
    elsewhere = make_folder(tmp_path / "elsewhere", ("red",), per_class=1)
    (photos / "link.png").symlink_to(next(photos.glob("red*")))
    (photos / "out of it").symlink_to(elsewhere)
    (photos / "ztrip").symlink_to(photos / "trip")
    found = tlkit.sort(run, photos, into=tmp_path / "out", by="move", **PLAIN)
    assert found.count == 6
    assert {one.file.partition("/")[0] for one in found.left} == {"link.png", "out of it"}
    assert len(names(elsewhere)) == 1
    assert {one.name for one in photos.rglob("*") if not one.is_symlink()} == {"trip", "bad.jpg"}
    assert tlkit.unsort(tmp_path / "out") == ()


def test_a_link_into_the_folder_of_the_sorted_is_not_followed(run, photos, tmp_path):
    tlkit.sort(run, photos, into=tmp_path / "out", by="copy", **PLAIN)
    (photos / "back").symlink_to(tmp_path / "out")
    found = tlkit.sort(run, photos, into=tmp_path / "out", by="copy", **PLAIN)
    assert found.count == 6
    assert len(found.left) == 6


def test_a_photo_that_changes_after_it_was_looked_at_stays(run, photos, tmp_path, monkeypatch):
    read = tlkit.sorting.read
    one = next(photos.glob("red*"))

    def late(path, *, at_least_px=0):
        pixels = read(path, at_least_px=at_least_px)
        if path == one:
            path.write_bytes(path.read_bytes() + b"more")
        return pixels

    monkeypatch.setattr("tlkit.sorting.read", late)
    found = tlkit.sort(run, photos, into=tmp_path / "out", by="move", **PLAIN)
    assert found.left == (Left(file=one.name, why="it has changed since it was looked at"),)
    assert one.exists()


def test_what_cannot_be_sorted_is_refused_before_anything_is_made(run, photos, tmp_path):
    with pytest.raises(FolderError, match="is not a folder"):
        tlkit.sort(run, photos / "bad.jpg", into=tmp_path / "out")
    with pytest.raises(FolderError, match="nothing to look at"):
        tlkit.sort(run, make_empty(tmp_path / "empty"), into=tmp_path / "out")
    with pytest.raises(HeadFileError):
        tlkit.sort(tmp_path / "none", photos, into=tmp_path / "out")
    for bad in ("2", "much", "nan"):
        with pytest.raises(OptionError, match="cannot"):
            tlkit.sort(run, photos, into=tmp_path / "out", reject_unlike=bad)
        with pytest.raises(OptionError, match="cannot"):
            tlkit.sort(run, photos, into=tmp_path / "out", reject_below=bad)
    with tarfile.open(photos / "more.tar", "w") as tar:
        tar.add(next(photos.glob("red*")), "red/1.png")
    with pytest.raises(FolderError, match="tar files"):
        tlkit.sort(run, photos, into=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def make_empty(path):
    path.mkdir()
    return path


def test_read_only_folders_are_refused_for_moves_alone(run, photos, tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, how: not str(path).endswith("trip") and access(path, how)
    )
    with pytest.raises(FolderError, match="read-only"):
        tlkit.sort(run, photos, into=tmp_path / "out", by="move")
    assert tlkit.sort(run, photos, into=tmp_path / "out", **PLAIN).count == 6


def test_a_class_may_be_called_anything():
    hostile = ("_unsure", "Cat", "cat", "CAT-2", "../up", "/", "", ".", "..", ".git", "a\0b",
               "sorted.json", "Undo.jsonl", "x" * 300, "x" * 301, "nul: ", "\udcff", "ﬁsh", "fish")  # fmt: skip
    found = folders_of(hostile)
    assert list(found) == list(hostile)
    folders = list(found.values())
    assert len({one.casefold() for one in folders}) == len(hostile)
    for one in folders:
        assert one
        assert not one.startswith(".")
        assert not set(one) & set("/\\\0:")
        assert len(one) < 120
        assert one.casefold() not in ("_unsure", "sorted.json", "undo.jsonl")
    assert folders_of(["ants", "bees"]) == {"ants": "ants", "bees": "bees"}
