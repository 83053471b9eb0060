"""The search finds the nearest of all, as a search in full precision does."""

import numpy as np
import pytest
import torch
from banks import bank_of
from torch.nn import functional

from tlkit.ask import index as module
from tlkit.ask.index import Index


def bank(values):
    return bank_of(values[:, None], torch.zeros(len(values), dtype=torch.int64))


def plainly(values, one, count):
    rows = functional.normalize(values.flatten(1).double(), dim=1)
    cosines = rows @ functional.normalize(one.flatten().double(), dim=0)
    order = torch.argsort(cosines, descending=True, stable=True)[:count]
    return order.numpy(), cosines[order].numpy()


def rows_of(count, width, spread, seed=0):
    """Around one direction: the smaller the spread, the more rows are all but equally near."""
    random = torch.Generator().manual_seed(seed)
    middle = torch.randn(width, generator=random)
    return middle + spread * torch.randn(count, width, generator=random)


@pytest.mark.parametrize("spread", [10, 1, 0.1, 0.01])
def test_the_nearest_are_those_of_an_exact_search(spread):
    values, asked = rows_of(3000, 64, spread), rows_of(3, 64, spread, seed=1)
    for one, found in zip(asked, Index(bank(values)).nearest(asked, 10), strict=True):
        places, cosines = plainly(values, one, 10)
        assert found.similarities == pytest.approx(cosines, abs=1e-6)
        # Those that differ by less than single precision may change places.
        apart = np.abs(np.diff(cosines)) > 1e-6
        settled = np.concatenate([[True], apart]) & np.concatenate([apart, [False]])
        assert (found.places[settled] == places[settled]).all()


def test_rounding_moves_no_cosine_by_more_than_is_allowed_for():
    values, asked = rows_of(500, 1280, 1).abs(), rows_of(8, 1280, 1, seed=1).abs()
    index = Index(bank(values))
    unit = functional.normalize(asked, dim=1)
    half = unit.bfloat16()
    rough = (index.vectors @ half.T).double()
    exact = functional.normalize(values.double(), dim=1) @ unit.double().T
    allowed = module.SLACK + index._moved + module._moved(unit, half)
    assert (rough - exact).abs().max() <= allowed
    assert allowed < 0.01


def test_vectors_of_any_shape_and_blocks_of_any_size_give_the_same(monkeypatch):
    values = rows_of(200, 24, 1)
    whole = Index(bank(values)).nearest(values[:5], 7)
    monkeypatch.setattr(module, "AT_ONCE", 13)
    monkeypatch.setattr(module, "IN_BLOCK", 50)
    monkeypatch.setattr(module, "ASKED", 2)
    cut = Index(bank(values.reshape(200, 2, 3, 4))).nearest(values[:5], 7)
    for one, other in zip(whole, cut, strict=True):
        assert one.places.tolist() == other.places.tolist()
        assert one.similarities == pytest.approx(other.similarities, abs=1e-6)


def test_the_same_vector_is_its_nearest_at_one():
    values = rows_of(50, 16, 1)
    for place, found in enumerate(Index(bank(values)).nearest(values, 1)):
        assert found.places.tolist() == [place]
        assert found.similarities == pytest.approx([1], abs=1e-6)


def test_there_are_no_more_than_all():
    index = Index(bank(rows_of(4, 8, 1)))
    (found,) = index.nearest(torch.ones(1, 8), 10)
    assert len(index) == 4
    assert sorted(found.places) == [0, 1, 2, 3]


def test_a_vector_of_zeros_is_like_nothing():
    values = rows_of(6, 8, 1)
    values[2] = 0
    (found,) = Index(bank(values)).nearest(values[2:3], 6)
    assert not found.similarities.any()


def test_random_pairs_are_sorted_and_never_of_a_vector_with_itself():
    values = torch.eye(40)
    pairs = Index(bank(values)).random_pairs(500)
    assert pairs.shape == (500,)
    assert not pairs.any()
    spread = Index(bank(rows_of(40, 8, 1))).random_pairs(500)
    assert (np.diff(spread) >= 0).all()
    assert Index(bank(values[:1].repeat(5, 1) * 0.7)).random_pairs(500) == pytest.approx(1)
    assert len(Index(bank(values[:1])).random_pairs(500)) == 0
