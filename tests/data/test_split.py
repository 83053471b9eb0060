"""Split: every image on one side, every class on both, the same on every machine."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tlkit.data.folder import Catalog, Parts, scan_parts
from tlkit.data.split import split
from tlkit.errors import FolderError

COUNTS = st.lists(st.integers(2, 60), min_size=2, max_size=6)
FRACTIONS = st.floats(0.01, 0.9)


def catalog(counts, root: str = "root") -> Catalog:
    """So many images of each class, without a disk."""
    return Catalog(
        root=Path(root),
        classes=tuple(f"c{label}" for label in range(len(counts))),
        files=tuple(f"c{label}/{n:03}.jpg" for label, c in enumerate(counts) for n in range(c)),
        labels=np.repeat(np.arange(len(counts)), counts),
    )


def whole(counts, root: str = "root") -> Parts:
    return Parts(train=catalog(counts, root), val=None, test=None)


@settings(deadline=None)
@given(COUNTS, FRACTIONS, st.integers(0, 5))
def test_every_image_is_on_one_side_with_its_own_label(counts, fraction, seed):
    parts = whole(counts)
    made = split(parts, val_fraction=fraction, seed=seed)
    assert sorted(made.train.files + made.val.files) == list(parts.train.files)
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


def test_every_class_with_one_image_is_named_in_one_error():
    with pytest.raises(FolderError, match="cannot be shared out") as caught:
        split(whole([1, 2, 1, 5]), val_fraction=0.2, seed=0)
    assert caught.value.found.splitlines() == ["1 image in 'c0'", "1 image in 'c2'"]
