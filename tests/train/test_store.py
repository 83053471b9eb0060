"""Rows on the disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlkit.errors import AnswerError
from tlkit.train.store import KEY, KEY_BYTES, Store, trim

SHAPE = (3, 2)


def keys(*numbers):
    return np.array([f"{one:016d}".encode() for one in numbers]).view(KEY)


def rows(count, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 7


def stored(folder, numbers, seed=0):
    store = Store(folder, SHAPE)
    store.append(keys(*numbers), rows(len(numbers), seed))
    store.settle()
    return store


def read(store, *numbers):
    return store.rows(store.find(keys(*numbers)))


def near(one, other):
    return bool(((one - other).abs() <= other.abs().amax(dim=(1, 2), keepdim=True) / 2**11).all())


def test_rows_come_back_in_half_precision_in_any_order_and_later(tmp_path):
    store = stored(tmp_path, [1, 2, 3])
    assert near(read(store, 3, 1, 3), rows(3)[[2, 0, 2]])
    assert torch.equal(read(Store(tmp_path, SHAPE), 2), read(store, 2))
    assert store.find(keys(4, 2)).tolist() == [-1, 1]


def test_segments_of_several_passes_are_one_store(tmp_path):
    stored(tmp_path, [1, 2])
    stored(tmp_path, [3], seed=1)
    store = stored(tmp_path, [4, 5], seed=2)
    wanted = torch.cat([rows(2), rows(1, 1), rows(2, 2)])
    assert near(read(store, 5, 1, 3, 2, 4), wanted[[4, 0, 2, 1, 3]])


def test_many_segments_do_not_hold_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tlkit.train.store.MOST_MAPPED", 2)
    for number in range(5):
        stored(tmp_path, [number], seed=number)
    store = Store(tmp_path, SHAPE)
    wanted = torch.cat([rows(1, number) for number in range(5)])
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 1, 2]):
        assert near(read(store, *order), wanted[order])
        assert len(store._maps) == 2


def test_two_passes_at_once_do_not_meet(tmp_path):
    one, other = Store(tmp_path, SHAPE), Store(tmp_path, SHAPE)
    one.append(keys(1), rows(1))
    other.append(keys(2), rows(1, 1))
    one.append(keys(3), rows(1, 2))
    one.settle()
    other.settle()
    store = Store(tmp_path, SHAPE)
    assert near(read(store, 1, 2, 3), torch.cat([rows(1), rows(1, 1), rows(1, 2)]))


@pytest.mark.parametrize("ending", ["rows", "keys"])
@pytest.mark.parametrize("lost", [1, 5, 17, 40])
def test_what_is_not_whole_is_not_there(tmp_path, ending, lost):
    stored(tmp_path, [1, 2, 3])
    (path,) = tmp_path.glob(f"*.{ending}")
    path.write_bytes(path.read_bytes()[:-lost])
    size = {"keys": KEY_BYTES, "rows": 4 + 2 * 6}[ending]
    store = Store(tmp_path, SHAPE)
    for number in (1, 2, 3):
        whole = number <= 3 - -(-lost // size)
        assert (store.find(keys(number))[0] >= 0) == whole
        if whole:
            assert near(read(store, number), rows(3)[number - 1 : number])


def test_a_pass_that_dies_leaves_what_was_safe(tmp_path, monkeypatch):
    monkeypatch.setattr("tlkit.train.store.SAFE_EVERY_S", 0.0)
    store = Store(tmp_path, SHAPE)
    store.append(keys(1, 2), rows(2))
    assert Store(tmp_path, SHAPE).find(keys(2))[0] >= 0
    store.settle()


def test_a_pass_or_a_trim_that_is_killed_leaves_no_rows_that_nobody_finds(tmp_path, monkeypatch):
    seen = []
    real = Path.open

    def watch(path, *args, **options):
        seen.append(path.suffix)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", watch)
    stored(tmp_path, [1, 2])
    assert seen[:2] == [".keys", ".rows"]  # so that rows are never there without keys
    gone = []
    monkeypatch.setattr(Path, "unlink", lambda path, **options: gone.append(path.suffix))
    trim(tmp_path, 0)
    assert gone == [".rows", ".keys"]
    monkeypatch.undo()
    next(tmp_path.glob("*.keys")).unlink()  # as earlier versions could leave them
    trim(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_are_never_read_and_zeros_stay_zeros(tmp_path):
    strange = torch.zeros(3, *SHAPE)
    strange[1, 0, 0] = float("nan")
    store = Store(tmp_path, SHAPE)
    store.append(keys(1, 2, 3), strange)
    store.settle()
    assert torch.equal(read(store, 1, 3), strange[[0, 2]])
    with pytest.raises(AnswerError, match="not finite"):
        read(store, 1, 2, 3)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=6, max_size=6))
def test_no_size_of_number_overflows(tmp_path_factory, numbers):
    values = torch.tensor(numbers).view(1, *SHAPE)
    store = Store(tmp_path_factory.mktemp("store"), SHAPE)
    store.append(keys(1), values)
    store.settle()
    assert near(read(store, 1), values)
