"""The photos that are chosen: of the least certain ones, and what they tell beside the labelled."""

import numpy as np
import pytest
import torch

from tlkit.ask.choice import MOST, TIMES, Photos, candidates_of, chosen, margins


def told_of(margin):
    """(N, 3) probabilities with these margins."""
    first = (1 + margin) / 2
    return np.stack([first, 1 - first, np.zeros(len(margin))], axis=1)


def vectors_of(count, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width))).float()


def photos_of(told, vectors):
    return Photos(told, lambda places: vectors[places])


def made_up(count, width=6, seed=0):
    """Photos with probabilities of four classes."""
    told = np.random.default_rng(seed).dirichlet(np.full(4, 0.5), size=count)
    return photos_of(told, vectors_of(count, width, seed))


def test_a_margin_is_between_the_two_likeliest_classes():
    told = np.array([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6], [1, 0, 0]])
    assert margins(told) == pytest.approx([0.1, 0.4, 1])


def test_candidates_are_the_least_certain_and_few():
    margin = np.random.default_rng(0).random(100)
    places = candidates_of(margin, 4)
    assert places.tolist() == np.argsort(margin)[: 4 * TIMES].tolist()
    assert sorted(candidates_of(margin, 90)) == list(range(100))
    many = np.zeros(3 * MOST)
    assert len(candidates_of(many, MOST // 2)) == MOST
    assert len(candidates_of(many, 2 * MOST)) == 2 * MOST


def test_each_is_chosen_once_and_is_a_candidate():
    margin, vectors = np.random.default_rng(1).random(60), vectors_of(60)
    found = chosen(photos_of(told_of(margin), vectors), 7)
    assert len(set(found)) == 7
    assert set(found) <= set(candidates_of(margin, 7))
    again = chosen(photos_of(told_of(margin), vectors), 7)
    assert found.tolist() == again.tolist()


def test_kinds_of_photos_all_have_their_turn():
    each = TIMES
    kinds = torch.eye(4).repeat_interleave(each, dim=0) + 0.01 * vectors_of(4 * each, 4)
    found = chosen(photos_of(told_of(np.full(4 * each, 0.1)), kinds), 4)
    assert sorted(found // each) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_photos_that_are_all_the_same_can_be_chosen_from(count):
    same = torch.ones(12, 3)
    found = chosen(photos_of(told_of(np.ones(12)), same), count)
    assert len(set(found.tolist())) == count


def test_vectors_are_asked_for_of_candidates_alone_in_the_order_of_files():
    asked = []
    margin, vectors = np.random.default_rng(2).random(100), vectors_of(100)

    def rows(places):
        asked.append(places)
        return vectors[places]

    chosen(Photos(told_of(margin), rows), 3)
    (places,) = asked
    assert places.tolist() == sorted(candidates_of(margin, 3).tolist())


def variance_left(photos, labelled, known):
    """The definition: a matrix is inverted. (N,) of the answers to all photos, given the labels of
    `labelled` and of the photos at `known`, each with noise 1.
    """
    every = np.arange(len(photos.told))
    vectors = photos.rows(every).double().numpy()
    centre = vectors.mean(axis=0)
    scale = np.sqrt(((vectors - centre) ** 2).sum(axis=1).mean())

    def likeness(one, other):
        (a, p), (b, q) = one, other
        doubt = np.sqrt(p * (1 - p)) @ np.sqrt(q * (1 - q)).T
        return (a - centre) @ (b - centre).T / scale**2 * doubt

    these = (vectors, photos.told)
    learnt = (
        np.concatenate([labelled.rows(np.arange(len(labelled.told))).numpy(), vectors[known]]),
        np.concatenate([labelled.told, photos.told[known]]),
    )
    across = likeness(these, learnt)
    inverse = np.linalg.inv(likeness(learnt, learnt) + np.eye(len(learnt[0])))
    return np.diag(likeness(these, these) - across @ inverse @ across.T)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_beside_labelled_photos_each_choice_lowers_the_variance_most(seed):
    photos, labelled = made_up(40, seed=seed), made_up(12, seed=seed + 10)
    found = chosen(photos, 5, labelled).tolist()
    candidates = candidates_of(margins(photos.told), 5).tolist()
    assert set(found) <= set(candidates)
    for number, place in enumerate(found):
        before = found[:number]
        left = {
            one: variance_left(photos, labelled, [*before, one]).sum()
            for one in candidates
            if one not in before
        }
        assert left[place] == pytest.approx(min(left.values()), rel=1e-9)


def test_what_is_labelled_already_is_not_asked_for_again():
    kinds = torch.eye(3).repeat(TIMES, 1)
    photos = photos_of(told_of(np.full(3 * TIMES, 0.1)), kinds)
    two = photos_of(told_of(np.full(40, 0.1)), torch.eye(3)[:2].repeat(20, 1))
    assert chosen(photos, 1, two)[0] % 3 == 2
    assert sorted(chosen(photos, 3, two) % 3) != [0, 1, 2]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_beside_labelled_photos_all_the_same_can_be_chosen_from(count):
    same = photos_of(told_of(np.ones(12)), torch.ones(12, 3))
    assert len(set(chosen(same, count, same).tolist())) == count


def test_of_many_labelled_photos_the_unsure_ones_are_looked_at(monkeypatch):
    monkeypatch.setattr("tlkit.ask.choice.LABELLED", 4)
    labelled, asked = made_up(30, seed=3), []

    def rows(places):
        asked.append(places)
        return labelled.rows(places)

    chosen(made_up(30), 2, Photos(labelled.told, rows))
    (places,) = asked
    doubt = (labelled.told * (1 - labelled.told)).sum(axis=1)
    assert places.tolist() == sorted(np.argsort(-doubt)[:4].tolist())
