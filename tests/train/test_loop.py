"""The loop's parts: order, schedule, optimizer groups, verdicts."""

import math
import threading

import numpy as np
import pytest
import torch
from banks import bank_of
from sklearn.metrics import balanced_accuracy_score, log_loss

from tlkit.model.build import Plan, build
from tlkit.options import FitOptions
from tlkit.testing import TINY
from tlkit.train.feeds import Ahead, BankFeed, shuffled
from tlkit.train.judge import balanced_weights, verdict
from tlkit.train.optimizer import optimizer_for
from tlkit.train.recipe import for_steps, plan_of
from tlkit.train.schedule import Pace


def test_an_epoch_is_a_permutation_and_no_two_are_alike():
    one, two = shuffled(50, 0, 1), shuffled(50, 0, 2)
    assert sorted(one) == sorted(two) == list(range(50))
    assert list(one) != list(two)
    assert list(one) == list(shuffled(50, 0, 1)) != list(shuffled(50, 1, 1))


def test_epochs_take_the_views_in_turn_and_every_image_once():
    values = torch.arange(30.0).view(10, 3, 1)
    feed = BankFeed(
        module=torch.nn.Identity(),
        bank=bank_of(values, torch.arange(10)),
        batch=4,
        seed=0,
    )
    for number in range(1, 7):
        inputs, labels = map(torch.cat, zip(*feed.epoch(number), strict=True))
        assert sorted(labels.tolist()) == list(range(10))
        assert torch.equal(inputs[:, 0], labels * 3.0 + (number - 1) % 3)
    assert feed.steps == len(list(feed.epoch(1)))


class Noting:
    """A feed that tells what is read, and by whom it was closed."""

    def __init__(self):
        self.read, self.closed = [], []
        self.begun = threading.Event()

    def epoch(self, number, done=0):
        try:
            for part in range(done, 3):
                self.read.append((number, part))
                self.begun.set()
                yield number, part
        finally:
            self.closed.append(number)


def test_the_next_epoch_begins_while_a_model_is_judged_and_stays_in_order():
    feed = Noting()
    with Ahead(feed) as ahead:
        assert list(ahead.epoch(1)) == [(1, 0), (1, 1), (1, 2)]
        feed.begun.clear()
        ahead.begin(2)
        assert feed.begun.wait(10)  # nobody has asked for it yet
        assert list(ahead.epoch(2)) == [(2, 0), (2, 1), (2, 2)]
        assert list(ahead.epoch(3, 2)) == [(3, 2)]  # a fit that goes on in the middle
        assert feed.closed == [1, 2, 3]
        ahead.begin(4)
    assert feed.closed == [1, 2, 3, 4]  # a fit that ends early reads no further
    assert feed.read[-1] == (4, 0)


def test_an_epoch_without_a_batch_and_one_that_cannot_be_read():
    class Empty:
        def epoch(self, number, done=0):
            yield from ()
            if number == 2:
                raise OSError("gone")

    with Ahead(Empty()) as ahead:
        assert list(ahead.epoch(1)) == []
        ahead.begin(2)
        with pytest.raises(OSError, match="gone"):
            list(ahead.epoch(2))


@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_rate_rises_then_falls_and_stays_within_its_peak(steps):
    pace = Pace(FitOptions(epochs=1), steps_per_epoch=steps)
    factors = [pace.factor(step) for step in range(steps)]
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == 1.0
    assert min(factors) > 0 or steps > 1
    if steps == 1000:
        assert factors[-1] < 1e-4


def test_head_and_backbone_have_their_own_rates_and_biases_are_not_decayed():
    options = FitOptions(backbone="tiny", freeze="none", lr=0.5, backbone_lr=0.25, weight_decay=0.1)
    cut = build(TINY, plan_of(options), 3).cut
    names = {id(one): name for name, one in cut.model.named_parameters()}
    for kind in ("adamw", "sgd"):
        seen = set()
        for group in optimizer_for(cut, options, kind).param_groups:
            for one in group["params"]:
                name = names[id(one)]
                seen.add(name)
                assert group["peak"] == (0.5 if name.startswith("head.") else 0.25)
                assert group["weight_decay"] == (0.1 if one.ndim > 1 else 0.0)
        assert seen == set(names.values())


def test_frozen_parameters_are_not_given_to_the_optimizer():
    options = FitOptions(backbone="tiny", freeze="features")
    cut = build(TINY, plan_of(options), 3).cut
    groups = optimizer_for(cut, options, "adamw").param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(cut.model.head.parameters()))


def test_verdicts_agree_with_scikit_learn():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 25 + [1] * 15)
    one = verdict(logits, labels)
    assert one.loss == pytest.approx(
        log_loss(labels, logits.double().softmax(1), labels=[0, 1, 2]), rel=1e-5
    )
    called = logits.argmax(1)
    called[called == 2] = 0  # a class that does not occur: scikit-learn would warn of it
    changed = torch.nn.functional.one_hot(called, 3).float()
    wanted = balanced_accuracy_score(labels, called)
    assert verdict(changed, labels).balanced_accuracy == pytest.approx(wanted)


def test_balanced_weights_make_every_class_count_alike():
    counts = np.array([10, 30, 60])
    weights = balanced_weights(counts).numpy()
    assert np.allclose(weights * counts, 100 / 3)
    assert math.isclose(float((weights * counts).sum()), 100, rel_tol=1e-5)


def test_a_plan_is_the_part_of_the_options_that_shapes_the_network():
    options = FitOptions(head="mlp", hidden=9, freeze="none", epochs=3)
    assert plan_of(options) == Plan(
        weights="default", attach="replace", head="mlp", hidden=9, dropout=0.3, pool="keep",
        freeze="none", seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "given", "batch"),
    [(0, 0, 32), (800, 0, 32), (6400, 0, 100), (10**6, 0, 1024), (10**6, 7, 7), (0, 5, 5)],
)
def test_a_step_on_stored_features_takes_a_64th_of_many(stored, given, batch):
    options = for_steps(FitOptions(batch=given), scratch=False, stored=stored)
    assert options.batch == batch
