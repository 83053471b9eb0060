"""The learning rate range test: rates grow, groups keep their ratio, the loss ends it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import tlkit
from tlkit.data.folder import scan_parts
from tlkit.data.split import split
from tlkit.errors import OptionError, UnknownName
from tlkit.options import FitOptions, SweepOptions
from tlkit.steps import finish
from tlkit.testing import TINY, make_folder
from tlkit.train.events import Epoch
from tlkit.train.range_test import range_test, rates_of, smoothing, suggested
from tlkit.train.run import ready, train

FEW = SweepOptions(steps=20)


def made_ready(folder, **options):
    chosen = FitOptions(backbone="tiny", **options)
    splits = split(scan_parts(folder), val_fraction=chosen.val_fraction, seed=chosen.seed)
    return finish(ready(chosen, TINY, splits))


def test_each_rate_is_the_same_factor_above_the_one_before_it():
    rates = rates_of(SweepOptions(min_lr=1e-6, max_lr=1.0, steps=13))
    assert (rates[0], rates[-1]) == (pytest.approx(1e-6), pytest.approx(1.0))
    factors = [b / a for a, b in pairwise(rates)]
    assert factors == pytest.approx([10**0.5] * 12)


def test_every_group_grows_in_proportion(colours, monkeypatch):
    one = made_ready(colours, freeze="none", lr=0.01, backbone_lr=0.002, stage_decay=0.5, batch=8)
    rates = []
    real = one.optimizer.step
    monkeypatch.setattr(
        one.optimizer,
        "step",
        lambda: rates.append({group["lr"] for group in one.optimizer.param_groups}) or real(),
    )
    result = finish(range_test(one, FEW))
    for head, groups in zip(result.rates, rates, strict=False):
        assert sorted(groups) == pytest.approx([0.1 * head, 0.2 * head, head])
    assert result.backbone_ratio == pytest.approx(0.2)


@pytest.mark.parametrize(
    "more", [{"head": "mlp"}, {"freeze": "none"}, {"freeze": "none", "batchnorm": "learn"}], ids=str
)
def test_the_first_step_is_that_of_the_fit(colours, more):
    """The same batch, the same loss: a rate too small to matter gives the fit's first epoch."""
    way = {"batch": 64, "optimizer": "sgd", **more}
    chosen = FitOptions(backbone="tiny", epochs=1, **way)
    splits = split(scan_parts(colours), val_fraction=chosen.val_fraction, seed=chosen.seed)
    events = []
    finish(train(chosen, TINY, splits), events.append)
    (epoch,) = [one for one in events if isinstance(one, Epoch)]
    result = finish(range_test(made_ready(colours, **way), FEW))
    assert result.losses[0] == pytest.approx(epoch.train_loss)


@pytest.mark.parametrize(
    "way",
    [
        {"head": "mlp"},
        {"optimizer": "adam"},
        {"freeze": "none", "batch": 4, "accumulate": 3, "augment": "none", "mixup": 0.2},
        {"strategy": "probe+finetune", "optimizer": "sgd"},
    ],
    ids=str,
)
def test_every_way_of_training_in_steps_can_be_tested(colours, way):
    result = tlkit.find_lr(colours, backbone="tiny", steps=30, **way)
    assert len(result.rates) == len(result.losses) == len(result.smoothed) >= 1
    assert all(math.isfinite(one) for one in result.losses)
    assert result.end


def test_the_same_seed_gives_the_same_losses(colours):
    way = {"backbone": "tiny", "head": "mlp", "steps": 20}
    assert tlkit.find_lr(colours, **way) == tlkit.find_lr(colours, **way)


def test_colours_are_learnt_at_the_suggested_rate(colours, tmp_path):
    way = {"backbone": "tiny", "freeze": "none", "augment": "none", "batch": 8}
    found = tlkit.find_lr(colours, **way)
    assert found.suggestion == min(found.steepest, found.lowest / 10)
    assert found.why_none == ""
    assert found.rates[0] < found.steepest <= found.lowest
    assert found.flags == f"--lr {found.suggestion:.2g} --backbone-lr {found.suggestion / 10:.2g}"
    result = tlkit.fit(
        colours, lr=found.suggestion, backbone_lr=found.suggestion / 10, out=tmp_path / "run", **way
    )
    assert result.best.val_accuracy == 1.0


def test_it_ends_where_the_loss_is_no_number(colours, monkeypatch):
    one = made_ready(colours, head="mlp")
    losses = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(
        "tlkit.train.range_test.take_step",
        lambda loss, parts, *rest: next(losses, math.nan) * sum(len(b) for _, b in parts),
    )
    result = finish(range_test(one, FEW))
    assert result.losses == pytest.approx((3.0, 2.0, 1.0))
    assert "finite" in result.end


def test_it_ends_where_the_smoothed_loss_is_four_times_its_minimum(colours, monkeypatch):
    one = made_ready(colours, head="mlp")
    losses = iter([1.0] * 10 + [100.0] * 10)
    monkeypatch.setattr(
        "tlkit.train.range_test.take_step",
        lambda loss, parts, *rest: next(losses) * sum(len(b) for _, b in parts),
    )
    result = finish(range_test(one, FEW))
    assert len(result.rates) == 11
    assert "4 times" in result.end
    assert result.suggestion is None
    assert "did not fall" in result.why_none
    assert result.flags == ""


def test_a_loss_that_is_no_number_from_the_start_is_an_error(colours, monkeypatch):
    one = made_ready(colours, head="mlp")
    monkeypatch.setattr("tlkit.train.range_test.take_step", lambda *rest: math.nan)
    with pytest.raises(tlkit.TlkitError, match="first step"):
        finish(range_test(one, FEW))


RATES = [10.0 ** (one / 12.5 - 7) for one in range(100)]


def smooth(losses):
    """As `range_test` smooths them."""
    keep, average, smoothed = smoothing(len(losses)), 0.0, []
    for step, loss in enumerate(losses):
        average = keep * average + (1 - keep) * loss
        smoothed.append(average / (1 - keep ** (step + 1)))
    return smoothed


def swept(losses, rates=RATES):
    return suggested(rates[: len(losses)], losses, smooth(losses))


def falling(middle, noise=0.0, seed=0):
    """From 2 to 1 around a step, with the noise of batches."""
    draw = np.random.default_rng(seed)
    return [
        2 - 1 / (1 + math.exp(-(step - middle) / 3)) + noise * draw.normal() for step in range(100)
    ]


@pytest.mark.parametrize("middle", [25, 40, 55, 70])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_rate_of_the_steepest_descent_is_suggested(middle, noise):
    for seed in range(5):
        reading = swept(falling(middle, noise, seed))
        # The average lags behind by a few steps, of which 12.5 are a factor of ten.
        assert RATES[middle - 5] < reading.steepest < RATES[middle + 10]
        assert reading.suggestion == min(reading.steepest, reading.lowest / 10)
        assert reading.why_none == ""


def test_where_the_loss_breaks_soon_a_tenth_of_the_lowest_is_suggested():
    losses = [2.0] * 50 + [1.0] * 10 + [9.0] * 10
    reading = swept(losses)
    assert reading.steepest > reading.lowest / 10
    assert reading.suggestion == reading.lowest / 10


@pytest.mark.parametrize("seed", range(20))
def test_a_rate_at_an_end_of_the_test_is_never_suggested(seed):
    """Whatever the losses are: what lies behind the end, nobody has seen."""
    draw = np.random.default_rng(seed)
    for middle in (-10, 0, 5, 90, 97, 100, 110, 130):
        losses = falling(middle, 0.02 * draw.random(), seed)
        reading = swept(losses)
        assert reading.suggestion is None or RATES[10] < reading.suggestion < RATES[-6]
    for losses in (
        [100.0 - step for step in range(100)],  # it falls the same everywhere
        [2.0 - 1e-9 * math.exp(step / 5) for step in range(100)],  # ever faster
        np.cumsum(draw.normal(-0.05, 0.3, 100)) + 20,
        draw.random(100),
    ):
        reading = swept([float(one) for one in losses])
        assert reading.suggestion is None or RATES[10] < reading.suggestion < RATES[-6]


def test_where_the_loss_falls_at_an_end_it_is_said_how_to_see_more():
    assert "--max-lr" in swept(falling(100)).why_none
    assert "--min-lr" in swept(falling(5)).why_none
    for losses in (falling(100), falling(5)):
        assert swept(losses).suggestion is None
        assert swept(losses).steepest is not None


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_the_noise_of_batches_is_no_fall(noise):
    for seed in range(20):
        draw = np.random.default_rng(seed)
        reading = swept([float(one) for one in 1 + noise * draw.normal(size=100)])
        assert (reading.steepest, reading.lowest, reading.suggestion) == (None, None, None)
        assert "did not fall" in reading.why_none
    assert "did not fall" in swept([2.0 + step for step in range(60)]).why_none
    assert "did not fall" in swept([2.0]).why_none


def test_a_head_that_learns_its_images_by_heart_gets_no_rate_at_the_end(tmp_path):
    """What can be told apart by any step has a loss that falls up to the last rate."""
    folder = make_folder(tmp_path / "photos", per_class=20)
    result = tlkit.find_lr(folder, backbone="tiny", optimizer="adamw", augment="none")
    assert result.suggestion is None or result.suggestion < result.rates[-1] / 100


def test_few_steps_are_smoothed_less():
    weights = [smoothing(one) for one in (10, 40, 100, 1000, 9999)]
    assert weights == pytest.approx([0.5, 0.5, 0.8, 0.98, 0.98])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "--optimizer adamw"),
        ({"optimizer": "lbfgs"}, "--optimizer adamw"),
        ({"optimizer": "adamw", "epochs": 3}, "--epochs 3"),
        ({"optimizer": "adamw", "schedule": "constant"}, "--schedule constant"),
        ({"optimizer": "adamw", "warmup": "0"}, "--warmup 0"),
        ({"optimizer": "adamw", "patience": 2}, "--patience 2"),
        ({"optimizer": "adamw", "ema": 0.9}, "--ema 0.9"),
        ({"optimizer": "adamw", "monitor": "accuracy"}, "--monitor accuracy"),
        ({"freeze": "none", "unfreeze_every": 1}, "--unfreeze-every 1"),
        ({"optimizer": "adamw", "lr": 0.1}, "--lr 0.1"),
        ({"optimizer": "adamw", "backbone_lr": 0.1}, "--backbone-lr 0.1"),
        ({"freeze": "none", "min_lr": 1.0, "max_lr": 0.5}, "--min-lr 1 --max-lr 0.5"),
        ({"steps": 3}, "from 10"),
        ({"head": "linaer"}, "linear"),
    ],
    ids=str,
)
def test_what_has_no_effect_or_no_rate_is_refused(colours, options, text):
    with pytest.raises(OptionError, match=text):
        tlkit.find_lr(colours, backbone="tiny", **options)


def test_unknown_options_are_guessed(colours):
    with pytest.raises(UnknownName, match="max_lr"):
        tlkit.find_lr(colours, maxlr=3)


def test_the_callers_random_numbers_are_untouched(colours):
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    tlkit.find_lr(colours, backbone="tiny", head="mlp", steps=10)
    assert torch.equal(torch.rand(1), wanted)
