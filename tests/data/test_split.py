"""Split: every image on one side, every class on both, the same on every machine."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tlkit.data.folder import Catalog, Parts, scan_parts
from tlkit.data.names import Names
from tlkit.data.split import folds, groups, split
from tlkit.errors import FolderError, OptionError

COUNTS = st.lists(st.integers(2, 60), min_size=2, max_size=6)
FRACTIONS = st.floats(0.01, 0.9)


def catalog(counts, root: str = "root") -> Catalog:
    """So many images of each class, without a disk."""
    return Catalog(
        root=Path(root),
        classes=tuple(f"c{label}" for label in range(len(counts))),
        files=Names.of(f"c{label}/{n:03}.jpg" for label, c in enumerate(counts) for n in range(c)),
        labels=np.repeat(np.arange(len(counts)), counts),
    )


def whole(counts, root: str = "root") -> Parts:
    return Parts(train=catalog(counts, root), val=None, test=None)


@settings(deadline=None)
@given(COUNTS, FRACTIONS, st.integers(0, 5))
def test_every_image_is_on_one_side_with_its_own_label(counts, fraction, seed):
    parts = whole(counts)
    made = split(parts, val_fraction=fraction, seed=seed)
    assert sorted([*made.train.files, *made.val.files]) == list(parts.train.files)
    for side in (made.train, made.val):
        assert side.classes == parts.train.classes
        assert [file.split("/")[0] for file in side.files] == [f"c{one}" for one in side.labels]
        assert list(side.files) == sorted(side.files)


@settings(deadline=None)
@given(COUNTS, FRACTIONS)
def test_each_class_gives_its_share_and_has_an_image_on_either_side(counts, fraction):
    made = split(whole(counts), val_fraction=fraction, seed=0)
    assert made.train.counts.min() >= 1
    assert made.val.counts.min() >= 1
    for count, held_out in zip(counts, made.val.counts, strict=True):
        assert abs(held_out - count * fraction) <= 1
        within = 1 <= count * fraction <= count - 1
        assert not within or abs(held_out - count * fraction) <= 0.5


@settings(deadline=None)
@given(COUNTS, FRACTIONS, st.integers(0, 5))
def test_a_split_is_a_function_of_names_share_and_seed(counts, fraction, seed):
    one = split(whole(counts), val_fraction=fraction, seed=seed)
    other = split(whole(counts, "elsewhere"), val_fraction=fraction, seed=seed)
    assert one.val.files == other.val.files
    assert one.train.files == other.train.files


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_another_seed_holds_out_others(one, other):
    assume(one != other)
    parts = whole([40, 40])
    files = [split(parts, val_fraction=0.5, seed=seed).val.files for seed in (one, other)]
    assert files[0] != files[1]


def test_classes_of_one_size_are_not_held_out_alike():
    made = split(whole([30, 30]), val_fraction=0.3, seed=0)
    first, second = (
        {file[3:] for file in made.val.files if file.startswith(f"c{one}/")} for one in range(2)
    )
    assert first != second


def test_what_is_held_out_is_drawn_not_the_first_or_the_last():
    members = np.flatnonzero(
        [
            file in split(whole([100, 2]), val_fraction=0.2, seed=0).val.files
            for file in catalog([100]).files
        ]
    )
    assert len(members) == 20
    assert members.max() - members.min() > 50


def test_images_of_one_class_do_not_change_what_is_held_out_of_another():
    few, many = (split(whole([20, count]), val_fraction=0.3, seed=3).val for count in (5, 50))
    assert [one for one in few.files if one < "c1"] == [one for one in many.files if one < "c1"]


def test_the_order_in_which_files_were_made_and_their_place_do_not_matter(tmp_path):
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(12)]
    held_out = []
    for root in ("one", "deep/er/two"):
        random.Random(root).shuffle(names)
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        held_out.append(split(scan_parts(tmp_path / root), val_fraction=0.4, seed=1).val.files)
    assert held_out[0] == held_out[1]


def test_a_folders_own_val_and_test_are_kept_as_they_are():
    parts = Parts(train=catalog([5, 1]), val=catalog([2, 3]), test=catalog([1, 1]))
    made = split(parts, val_fraction=0.5, seed=0)
    assert (made.train, made.val, made.test) == (parts.train, parts.val, parts.test)


def test_the_test_part_is_not_touched_where_val_is_held_out():
    parts = Parts(train=catalog([5, 5]), val=None, test=catalog([1, 1]))
    assert split(parts, val_fraction=0.5, seed=0).test is parts.test


@pytest.mark.parametrize("val", [None, catalog([3])])
def test_a_single_class_cannot_be_learnt(val):
    parts = Parts(train=catalog([9]), val=val, test=None)
    with pytest.raises(FolderError, match="one class") as caught:
        split(parts, val_fraction=0.2, seed=0)
    assert "'c0' (9 images)" in caught.value.found


def test_of_groups_every_class_with_one_image_is_named_in_one_error():
    with pytest.raises(FolderError, match="cannot be shared out") as caught:
        split(whole([1, 2, 1, 5]), val_fraction=0.2, seed=0, group_by=r"\d+")
    assert caught.value.found.splitlines() == ["1 image in 'c0'", "1 image in 'c2'"]


def test_the_only_image_of_a_class_is_learnt_from():
    found = split(whole([1, 2, 1, 5]), val_fraction=0.2, seed=0)
    assert found.train.counts.tolist() == [1, 1, 1, 4]
    assert found.val.counts.tolist() == [0, 1, 0, 1]
    assert len(split(whole([1, 1]), val_fraction=0.2, seed=0).val) == 0


def patients(counts, each: int, root: str = "root") -> Parts:
    """So many images of each class, `each` of a patient, whose folder tells who it is."""
    plain = catalog(counts, root)
    files = tuple(
        f"{name.partition('/')[0]}/p{int(name[-7:-4]) // each:02}/{name[-7:]}"
        for name in plain.files
    )
    return Parts(train=replace(plain, files=Names.of(files)), val=None, test=None)


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(2, 12), st.integers(0, 5))
def test_each_image_is_held_out_by_one_fold_and_each_class_shared_out_evenly(counts, count, seed):
    assume(min(counts) >= count)
    parts = whole(counts)
    made = folds(parts, count=count, seed=seed)
    assert len(made) == count
    assert sorted(file for one in made for file in one.val.files) == list(parts.train.files)
    for one in made:
        assert sorted([*one.train.files, *one.val.files]) == list(parts.train.files)
        assert (np.abs(one.val.counts - np.array(counts) / count) < 1).all()
        assert one.train.counts.min() >= 1
    again = folds(whole(counts, "elsewhere"), count=count, seed=seed)
    assert [one.val.files for one in again] == [one.val.files for one in made]


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(2, 5), st.integers(1, 7), st.integers(0, 5))
def test_no_group_is_on_both_sides_of_a_fold(counts, count, each, seed):
    parts = patients(counts, each)
    try:
        made = folds(parts, count=count, seed=seed, group_by="^[^/]+")
    except FolderError:
        assume(False)
    assert sorted(file for one in made for file in one.val.files) == list(parts.train.files)
    for one in made:
        assert not who(one.train) & who(one.val)
        assert one.train.counts.min() >= 1
        assert len(one.val)
    again = folds(patients(counts, each, "else"), count=count, seed=seed, group_by="^[^/]+")
    assert [one.val.files for one in again] == [one.val.files for one in made]


def who(catalog: Catalog) -> set[str]:
    return {file.split("/")[1] for file in catalog.files}


@settings(deadline=None, max_examples=60)
@given(COUNTS, FRACTIONS, st.integers(1, 9), st.integers(0, 5))
def test_a_held_out_share_keeps_groups_together_and_every_class_on_both_sides(
    counts, fraction, each, seed
):
    parts = patients(counts, each)
    try:
        made = split(parts, val_fraction=fraction, seed=seed, group_by="^[^/]+")
    except FolderError:
        # Only where a class is in one group, or groups hold several classes together.
        assert min(counts) <= each or len(set(counts)) > 1
        return
    assert not who(made.train) & who(made.val)
    assert sorted([*made.train.files, *made.val.files]) == list(parts.train.files)
    assert made.train.counts.min() >= 1
    assert made.val.counts.min() >= 1


def test_a_share_of_small_groups_is_near_what_was_asked_for_and_drawn():
    parts = patients([60, 60], 3)
    made = [split(parts, val_fraction=0.3, seed=seed, group_by="^[^/]+") for seed in range(3)]
    for one in made:
        assert (np.abs(one.val.counts - 18) <= 3).all()
    assert len({tuple(one.val.files) for one in made}) == 3


def test_a_group_is_the_first_group_of_the_pattern_or_the_whole_match():
    plain = catalog([4])
    files = ("c0/ann_1.jpg", "c0/ann_2.jpg", "c0/bob_1.jpg", "c0/bob_2.jpg")
    one = replace(plain, files=Names.of(files))
    assert groups(one, r"^([a-z]+)_").tolist() == [0, 0, 1, 1]
    assert groups(one, r"_\d").tolist() == [0, 1, 0, 1]
    assert groups(one, r"(?:ann|bob)_(\d)").tolist() == [0, 1, 0, 1]


def test_one_group_may_be_in_several_classes():
    made = folds(patients([12, 12], 3), count=4, seed=0, group_by="p..")
    for one in made:
        assert len(who(one.val)) == 1
        assert one.val.counts.tolist() == [3, 3]


def test_a_pattern_that_is_none_or_names_nothing_is_an_error_with_examples():
    with pytest.raises(OptionError, match="regular expression"):
        folds(whole([9, 9]), count=2, seed=0, group_by="(")
    for pattern in ("^([0-4]+)5", "x*", "0(a)?"):
        with pytest.raises(FolderError, match="does not name") as caught:
            split(whole([9, 9]), val_fraction=0.2, seed=0, group_by=pattern)
        assert "c0/00" in caught.value.found
        assert "'00" in caught.value.expected


def test_classes_with_fewer_images_or_groups_than_folds_are_named_in_one_error():
    with pytest.raises(FolderError, match="over 5 folds") as caught:
        folds(whole([4, 9, 2, 5]), count=5, seed=0)
    assert caught.value.found.splitlines() == ["4 images in 'c0'", "2 images in 'c2'"]
    with pytest.raises(FolderError, match="over 3 folds") as caught:
        folds(patients([20, 9], 4), count=4 - 1, seed=0, group_by="p.") if False else folds(
            patients([20, 7], 4), count=3, seed=0, group_by="^[^/]+"
        )
    assert caught.value.found == "2 groups in 'c1'"
    with pytest.raises(FolderError, match="cannot be shared out"):
        split(patients([9, 9], 9), val_fraction=0.2, seed=0, group_by="^[^/]+")


def test_folds_and_a_val_part_of_the_users_are_one_too_many():
    parts = Parts(train=catalog([5, 5]), val=catalog([2, 3]), test=None)
    with pytest.raises(FolderError, match="--folds"):
        folds(parts, count=2, seed=0)


def test_the_test_part_is_the_same_for_all_folds():
    parts = Parts(train=catalog([5, 5]), val=None, test=catalog([1, 1]))
    assert all(one.test is parts.test for one in folds(parts, count=3, seed=0))


def test_groups_on_both_sides_of_the_folders_own_parts_are_refused(tmp_path):
    for part, patients_in in (("train", "abcd"), ("test", "de")):
        for label in ("c0", "c1"):
            for one in patients_in:
                path = tmp_path / part / label / one / "1.png"
                path.parent.mkdir(parents=True)
                path.write_bytes(b"")
    parts = scan_parts(tmp_path)
    for make in (
        lambda: split(parts, val_fraction=0.3, seed=0, group_by="^[^/]+"),
        lambda: folds(parts, count=2, seed=0, group_by="^[^/]+"),
    ):
        with pytest.raises(FolderError, match="both in train and in test") as caught:
            make()
        assert caught.value.found == "d"
