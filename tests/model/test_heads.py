"""Heads and the scale in front of them."""

import pytest
import torch

from tlkit.model.heads import HEADS, Scale, make_head


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_one_logit_per_class_and_can_be_trained(name):
    head = make_head(name, 7, 4, 5, 0.5)
    logits = head(torch.randn(6, 7))
    assert logits.shape == (6, 4)
    logits.sum().backward()
    assert all(one.grad is not None for one in head.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_a_head_has_exactly_the_options_that_it_says(name):
    kind = HEADS[name]

    def text(hidden, dropout):
        return repr(make_head(name, 7, 4, hidden, dropout))

    assert (text(5, 0.5) != text(6, 0.5)) == ("hidden" in kind.uses)
    assert (text(5, 0.5) != text(5, 0.25)) == ("dropout" in kind.uses)


def test_only_a_linear_head_is_convex():
    for kind in HEADS.values():
        layers = list(kind.make(7, 4, 5, 0.5).modules())
        assert kind.convex == (len(layers) == 1)


def test_scale_is_the_identity_until_it_has_seen_features():
    vectors = torch.randn(5, 3)
    assert torch.equal(Scale(3)(vectors), vectors)


def test_scaled_features_are_centred_and_of_unit_variance_together():
    vectors = torch.randn(500, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0]) + 7
    scale = Scale(4)
    scale.fit_to([vectors])
    scaled = scale(vectors)
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(4), atol=1e-3)
    assert scaled.square().mean().item() == pytest.approx(1, rel=1e-3)


def test_scale_does_not_depend_on_the_unit_of_the_features():
    vectors = torch.randn(50, 4) * torch.tensor([0.1, 1.0, 10.0, 100.0])
    one, thousandfold = Scale(4), Scale(4)
    one.fit_to([vectors])
    thousandfold.fit_to([1000 * vectors])
    assert torch.allclose(one(vectors), thousandfold(1000 * vectors), atol=1e-5)


def test_a_feature_that_never_varies_is_left_out_and_nothing_becomes_infinite():
    vectors = torch.randn(50, 3)
    vectors[:, 1] = 4.0
    scale = Scale(3)
    scale.fit_to([vectors])
    assert torch.equal(scale(vectors)[:, 1], torch.zeros(50))
    scale.fit_to([torch.ones(50, 3)])
    assert scale(torch.ones(50, 3)).isfinite().all()
