"""Folder: which files are images of which class, and what is left out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tlkit.data.folder import (
    ENDINGS,
    find_images,
    is_image_name,
    scan,
    scan_for_judging,
    scan_parts,
)
from tlkit.errors import FolderError
from tlkit.testing import make_folder


def touch(root: Path, *names: str) -> Path:
    """Empty files; a name that ends in / is a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def shown(catalog) -> dict[str, str]:
    """File -> class."""
    return {
        file: catalog.classes[label]
        for file, label in zip(catalog.files, catalog.labels, strict=True)
    }


def test_a_sub_folder_is_a_class_and_holds_its_images(tmp_path):
    catalog = scan(touch(tmp_path, "cats/1.jpg", "dogs/1.png", "dogs/2.JPEG"))
    assert shown(catalog) == {"cats/1.jpg": "cats", "dogs/1.png": "dogs", "dogs/2.JPEG": "dogs"}
    assert catalog.counts.tolist() == [1, 2]
    assert len(catalog) == 3
    assert catalog.paths == [tmp_path / one for one in catalog.files]
    assert catalog.left_out == ()


def test_classes_are_in_plain_string_order_as_torchvision_has_them(tmp_path):
    from torchvision.datasets.folder import find_classes

    touch(tmp_path, *(f"{name}/1.jpg" for name in ("apple", "2", "10", "Cat", "1", "Äpfel")))
    classes = scan(tmp_path).classes
    assert classes == ("1", "10", "2", "Cat", "apple", "Äpfel")
    assert list(classes) == find_classes(str(tmp_path))[0]


def test_files_are_in_string_order_whatever_order_the_disk_lists_them(tmp_path, monkeypatch):
    touch(
        tmp_path, "a/1/x.jpg", "a/1-b.jpg", "a/B.jpg", "a/b.jpg", "a/10.jpg", "a/9.jpg", "b/1.jpg"
    )
    one = scan(tmp_path)
    assert list(one.files) == sorted(one.files)
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(real(path))[::-1])
    assert scan(tmp_path).files == one.files


def test_images_count_at_any_depth(tmp_path):
    catalog = scan(touch(tmp_path, "cats/a/b/c/1.jpg", "cats/2.jpg", "dogs/x/3.jpg"))
    assert shown(catalog) == {
        "cats/2.jpg": "cats",
        "cats/a/b/c/1.jpg": "cats",
        "dogs/x/3.jpg": "dogs",
    }


def test_hidden_and_empty_folders_are_no_classes_and_are_listed(tmp_path):
    touch(tmp_path, "a/1.jpg", ".ipynb_checkpoints/1.jpg", "empty/", "texts/a.txt", "deep/er/")
    catalog = scan(tmp_path)
    assert catalog.classes == ("a",)
    told = "\n".join(catalog.left_out)
    assert "hidden: .ipynb_checkpoints" in told
    for name in ("empty/", "texts/", "deep/"):
        assert f"no images: {name}" in told


def test_nothing_is_left_out_unnamed(tmp_path):
    used = ["a/1.jpg", "b/sub/2.png"]
    unused = ["loose.jpg", "notes.txt", ".DS_Store", "a/Thumbs.db", "a/.hid.jpg", "b/.git/x.jpg"]
    catalog = scan(touch(tmp_path, *used, *unused))
    assert list(catalog.files) == used
    assert len(catalog.left_out) == len(unused)
    for name in ("loose.jpg", "notes.txt", ".DS_Store", "Thumbs.db", ".hid.jpg", ".git"):
        assert any(name in line for line in catalog.left_out)


def test_what_is_left_out_is_listed_in_the_same_order_on_every_disk(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", *(f"a/{one}.txt" for one in "badc"))
    one = scan(tmp_path).left_out
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: list(real(path))[::-1])
    assert scan(tmp_path).left_out == one


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_an_image_is_known_by_its_ending_in_any_case(ending):
    assert is_image_name(f"a{ending}")
    assert is_image_name(f"a.b{ending.upper()}")
    assert not is_image_name(ending)
    assert not is_image_name(f"a{ending}.txt")


def test_images_beside_each_other_are_told_apart_from_no_images(tmp_path):
    with pytest.raises(FolderError, match="2 images beside each other"):
        scan(touch(tmp_path / "loose", "1.jpg", "2.jpg", "a.txt"))
    with pytest.raises(FolderError, match="no image"):
        scan(touch(tmp_path / "texts", "a/a.txt"))


@pytest.mark.parametrize("look", [scan, scan_parts, scan_for_judging])
def test_a_path_that_is_no_folder_says_what_it_is(tmp_path, look):
    touch(tmp_path, "file.jpg", "bad/")
    with pytest.raises(FolderError, match="nothing at that path"):
        look(tmp_path / "missing")
    with pytest.raises(FolderError, match="a file"):
        look(tmp_path / "file.jpg")
    with pytest.raises(FolderError, match="not an image folder"):
        look(tmp_path / "bad")


def test_a_folder_that_may_not_be_read_is_one_of_our_errors(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "lost+found/")
    real = os.scandir

    def refuse(path):
        if "lost" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FolderError, match=r"lost\+found"):
        scan(tmp_path)


# --- links ----------------------------------------------------------------------------------------


def test_links_are_followed_and_those_that_lead_back_are_named(tmp_path):
    touch(tmp_path, "data/a/1.jpg", "data/b/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "back").symlink_to(tmp_path / "data" / "b")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    catalog = scan(tmp_path / "data")
    assert list(catalog.files) == ["a/1.jpg", "a/more/2.jpg", "b/1.jpg", "c/2.jpg"]
    assert len(catalog.left_out) == 1
    assert "back" in catalog.left_out[0]


def test_a_link_to_itself_stops_nothing(tmp_path):
    touch(tmp_path, "a/1.jpg")
    for name in ("loop", "a/loop", "a/loop.jpg"):
        (tmp_path / name).symlink_to(Path(name).name)
    catalog = scan_parts(tmp_path).train
    # A file called .jpg that cannot be opened is an unreadable image, for images.py to name.
    assert list(catalog.files) == ["a/1.jpg", "a/loop.jpg"]
    assert len(catalog.left_out) == 2
    assert find_images([tmp_path / "a"]) == [tmp_path / "a/1.jpg", tmp_path / "a/loop.jpg"]


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL", "dev"])
@pytest.mark.parametrize("test", ["test", "testing"])
def test_parts_are_known_by_their_usual_names(tmp_path, train, val, test):
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/1.jpg", f"{val}/a/2.jpg", f"{test}/b/3.jpg")
    parts = scan_parts(tmp_path)
    assert shown(parts.train) == {"a/1.jpg": "a", "b/1.jpg": "b"}
    assert shown(parts.val) == {"a/2.jpg": "a"}
    assert shown(parts.test) == {"b/3.jpg": "b"}


def test_a_folder_without_parts_is_all_for_learning(tmp_path):
    parts = scan_parts(touch(tmp_path, "a/1.jpg", "b/1.jpg", "test/1.jpg"))
    assert parts.train.classes == ("a", "b", "test")
    assert parts.val is parts.test is None


def test_a_class_called_train_that_holds_images_is_a_class(tmp_path):
    touch(tmp_path, "bus/1.jpg", "train/1.jpg", "test/1.jpg", "train/.thumbs/1.jpg")
    parts = scan_parts(tmp_path)
    assert parts.train.classes == ("bus", "test", "train")
    assert parts.val is parts.test is None
    assert scan_for_judging(tmp_path).classes == parts.train.classes


def test_classes_of_the_other_parts_are_matched_by_name_not_by_place(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg")
    touch(tmp_path, "val/c/1.jpg", "test/b/1.jpg", "test/c/1.jpg")
    parts = scan_parts(tmp_path)
    assert parts.val.classes == parts.test.classes == parts.train.classes == ("a", "b", "c")
    assert parts.val.labels.tolist() == [2]
    assert parts.test.labels.tolist() == [1, 2]
    assert parts.test.counts.tolist() == [0, 1, 1]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_was_not_learnt_is_an_error_with_the_nearest(tmp_path, part):
    touch(tmp_path, "train/cats/1.jpg", "train/dogs/1.jpg", f"{part}/cat/1.jpg")
    touch(tmp_path, f"{part}/dgos/1.jpg")
    with pytest.raises(FolderError, match="cats, dogs") as caught:
        scan_parts(tmp_path)
    for name, guess in (("cat", "cats"), ("dgos", "dogs")):
        assert f"{tmp_path / part / name}: did you mean '{guess}'?" in caught.value.found


@pytest.mark.parametrize("parts", [["test"], ["val"], ["Test", "validation"]])
def test_parts_without_a_train_part_are_no_classes(tmp_path, parts):
    for part in parts:
        touch(tmp_path, f"{part}/cats/1.jpg", f"{part}/dogs/1.jpg")
    with pytest.raises(FolderError, match="nothing to learn from"):
        scan_parts(tmp_path)
    assert scan_for_judging(tmp_path).classes == ("cats", "dogs")


def test_relabelling_keeps_the_images_and_moves_the_labels(tmp_path):
    catalog = scan(touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg"))
    other = catalog.relabel(["b", "x", "a"])
    assert shown(other) == shown(catalog)
    assert other.labels.tolist() == [2, 0, 0]
    assert other.counts.tolist() == [2, 0, 1]


def test_taking_keeps_each_image_with_its_label(tmp_path):
    catalog = scan(touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg", "c/note.txt"))
    taken = catalog.take(np.array([3, 1]))
    assert shown(taken) == {"c/1.jpg": "c", "b/1.jpg": "b"}
    assert taken.classes == catalog.classes
    assert taken.left_out == catalog.left_out


def test_judging_takes_test_then_val_then_the_whole_and_never_what_was_learnt_from(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    with pytest.raises(FolderError, match="nothing to evaluate on"):
        scan_for_judging(tmp_path)
    touch(tmp_path, "val/a/2.jpg")
    assert scan_for_judging(tmp_path).paths == [tmp_path / "val/a/2.jpg"]
    touch(tmp_path, "test/b/3.jpg")
    assert scan_for_judging(tmp_path).paths == [tmp_path / "test/b/3.jpg"]
    assert len(scan_for_judging(tmp_path / "train")) == 2


# --- finding without classes ----------------------------------------------------------------------


def test_paths_are_taken_in_order_and_folders_searched_to_every_depth(tmp_path):
    touch(tmp_path, "z.jpg", "in/b.png", "in/a/deep/c.jpg", "in/note.txt", "in/.hid.jpg")
    found = find_images([tmp_path / "z.jpg", tmp_path / "in"])
    assert [one.relative_to(tmp_path).as_posix() for one in found] == [
        "z.jpg",
        "in/a/deep/c.jpg",
        "in/b.png",
    ]


def test_a_file_is_taken_whatever_its_ending_and_as_often_as_it_is_named(tmp_path):
    touch(tmp_path, "photo.dat", "a.jpg")
    paths = [tmp_path / "photo.dat", tmp_path / "a.jpg"]
    assert find_images([*paths, tmp_path, *paths]) == [*paths, paths[1], *paths]


@pytest.mark.parametrize("order", [("in", "in/deep"), ("in/deep", "in"), ("in", "."), ("in", "in")])
def test_folders_that_overlap_are_merged_and_a_warning_counts_what_they_share(
    tmp_path, order, caplog, monkeypatch
):
    touch(tmp_path, "in/a.jpg", "in/deep/b.jpg")
    monkeypatch.chdir(tmp_path)
    found = find_images([Path(folder) for folder in order])
    assert sorted(one.as_posix() for one in found) == ["in/a.jpg", "in/deep/b.jpg"]
    shared = 2 if "in/deep" not in order else 1
    assert f"{shared} image{'s are' if shared > 1 else ' is'} in more than one" in caplog.text


def test_a_folder_by_a_link_and_by_its_name_is_one_folder(tmp_path):
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    assert find_images([tmp_path / "in", tmp_path / "link"]) == [tmp_path / "in" / "a.jpg"]


def test_every_path_without_images_is_told_in_one_error(tmp_path):
    touch(tmp_path, "a.jpg", "empty/")
    with pytest.raises(FolderError) as caught:
        find_images([tmp_path / "gone.jpg", tmp_path / "a.jpg", tmp_path / "empty"])
    gone, empty = caught.value.found.splitlines()
    assert gone.endswith("gone.jpg: no such file or folder")
    assert empty.endswith("empty: a folder without images")


def test_relative_paths_stay_relative(tmp_path):
    touch(tmp_path, "in/a.jpg")
    assert find_images([Path("in")]) == [Path("in/a.jpg")]
    assert scan(Path()).paths == [Path("in/a.jpg")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.parquet", "a Parquet table"),
        ("labels.CSV", "a table"),
        ("list.txt", "a text file"),
        ("metadata.jsonl", "a JSON file"),
    ],
)
def test_a_list_of_images_is_told_what_it_is(tmp_path, name, text):
    path = tmp_path / name
    path.write_text("path,label\na.png,cat\n")
    with pytest.raises(FolderError, match=text) as caught:
        find_images([path])
    assert "--ray auto --out" in caught.value.do
    with pytest.raises(FolderError, match=text) as caught:
        scan(path)
    assert "a folder for each class" in caught.value.do


def test_a_folder_called_like_a_list_is_a_folder(tmp_path):
    make_folder(tmp_path / "photos.csv")
    assert len(find_images([tmp_path / "photos.csv"])) == 24


@pytest.mark.skipif(shutil.which("bash") is None, reason="the advice is for a shell")
def test_the_advice_for_a_table_of_labels_makes_class_folders(tmp_path):
    make_folder(tmp_path / "flat", classes=("x", "y"), per_class=1)
    lines = ["path,label", "flat/x/000.png,cat", "flat/y/000.png,big dog"]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(FolderError) as caught:
        scan(tmp_path / "labels.csv")
    command = caught.value.do.splitlines()[-1].replace("FILE", "labels.csv")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert list(scan(tmp_path / "images").classes) == ["big dog", "cat"]
