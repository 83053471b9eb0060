"""The photos that are chosen: of the least certain ones, and unlike each other."""

import numpy as np
import pytest
import torch

from tlkit.ask.choice import TIMES, candidates_of, chosen, margins


def told_of(margin):
    """(N, 3) probabilities with these margins."""
    first = (1 + margin) / 2
    return np.stack([first, 1 - first, np.zeros(len(margin))], axis=1)


def vectors_of(count, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width))).float()


def test_a_margin_is_between_the_two_likeliest_classes():
    told = np.array([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6], [1, 0, 0]])
    assert margins(told) == pytest.approx([0.1, 0.4, 1])


def test_candidates_are_the_least_certain_and_few():
    margin = np.random.default_rng(0).random(100)
    places = candidates_of(margin, 4)
    assert places.tolist() == np.argsort(margin)[: 4 * TIMES].tolist()
    assert sorted(candidates_of(margin, 90)) == list(range(100))


def test_each_is_chosen_once_and_is_a_candidate():
    margin, vectors = np.random.default_rng(1).random(60), vectors_of(60)
    found = chosen(told_of(margin), lambda places: vectors[places], 7)
    assert len(set(found)) == 7
    assert set(found) <= set(candidates_of(margin, 7))
    again = chosen(told_of(margin), lambda places: vectors[places], 7)
    assert found.tolist() == again.tolist()


def test_kinds_of_photos_all_have_their_turn():
    each = TIMES
    kinds = torch.eye(4).repeat_interleave(each, dim=0) + 0.01 * vectors_of(4 * each, 4)
    found = chosen(told_of(np.full(4 * each, 0.1)), lambda places: kinds[places], 4)
    assert sorted(found // each) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_photos_that_are_all_the_same_can_be_chosen_from(count):
    same = torch.ones(12, 3)
    found = chosen(told_of(np.ones(12)), lambda places: same[places], count)
    assert len(set(found.tolist())) == count


def test_vectors_are_asked_for_of_candidates_alone_in_the_order_of_files():
    asked = []
    margin, vectors = np.random.default_rng(2).random(100), vectors_of(100)

    def rows(places):
        asked.append(places)
        return vectors[places]

    chosen(told_of(margin), rows, 3)
    (places,) = asked
    assert places.tolist() == sorted(candidates_of(margin, 3).tolist())
