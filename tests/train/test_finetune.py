"""Training more than a head: strategies, unfreezing, averages, blends, steps."""

import itertools
import math

import pytest
import torch
from torch import nn

import tlkit
from tlkit.data.folder import scan_parts
from tlkit.data.pixels import Decoded, Room
from tlkit.data.split import split
from tlkit.data.transforms import augmentation
from tlkit.errors import OptionError, TlkitError
from tlkit.model.build import build
from tlkit.model.device import compute_on
from tlkit.options import FitOptions
from tlkit.steps import finish
from tlkit.testing import TINY
from tlkit.train import loop
from tlkit.train.events import Epoch, Note
from tlkit.train.feeds import ImageFeed
from tlkit.train.judge import Verdict, loss_of, standing
from tlkit.train.mix import mix_for
from tlkit.train.optimizer import optimizer_for
from tlkit.train.recipe import plan_of, settle
from tlkit.train.run import train

SAME = Verdict(loss=1.0, accuracy=0.5, balanced_accuracy=0.5)


def fitted(folder, **options):
    chosen = FitOptions(backbone="tiny", **options)
    splits = split(scan_parts(folder), val_fraction=0.25, seed=0)
    events = []
    return finish(train(chosen, TINY, splits), events.append), events


class Run:
    """The loop on its own: a cut, and its tensors after each epoch."""

    def __init__(self, folder, judge=lambda: SAME, **options):
        self.options = FitOptions(
            **{"freeze": "none", "lr": 0.01, "backbone_lr": 0.01, "batch": 32, **options}
        )
        self.cut = build(TINY, plan_of(self.options), 3).cut
        self.start = self.copy()
        self.judge = judge
        chosen = compute_on("cpu", "fp32")
        catalog = scan_parts(folder).train
        feed = ImageFeed(
            module=self.cut.model, catalog=catalog, seed=0, workers=1,
            augmentation=augmentation("none", self.cut.model.spec, 0),
            pixels=Decoded(catalog.paths, at_least_px=36, room=Room("none", 0)),
            batch=self.options.batch,
        )  # fmt: skip
        self.optimizer = optimizer_for(self.cut, self.options, "sgd")
        self.records = loop.epochs(
            self.cut, feed, lambda: self.judge(), self.options, optimizer=self.optimizer,
            loss=loop.loss_for(
                chosen, self.cut.model, self.options, class_weights=None, classes=3
            ),
        )  # fmt: skip

    def copy(self):
        return {name: one.detach().clone() for name, one in self.cut.model.state_dict().items()}

    def after_each_epoch(self):
        return [self.copy() for one in self.records if isinstance(one, Epoch)]


def changed(before, after):
    """The parts of the network of which a tensor has changed."""
    return {
        ".".join(name.split(".")[: 2 if name.startswith("features") else 1])
        for name in before
        if not torch.equal(before[name], after[name])
    }


# --- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "frozen"),
    [
        ({}, "features"),
        ({"strategy": "probe"}, "backbone"),
        ({"strategy": "finetune"}, "none"),
        ({"strategy": "probe+finetune"}, "none"),
        ({"strategy": "probe+finetune", "freeze": "to:stage1"}, "to:stage1"),
        ({"weights": "none"}, "none"),
        ({"weights": "none", "freeze": "features"}, "features"),
        ({"weights": "none", "strategy": "probe"}, "backbone"),
        ({"freeze": "backbone"}, "backbone"),
    ],
    ids=str,
)
def test_what_is_frozen_follows_from_strategy_and_weights(given, frozen):
    assert settle(FitOptions(**given), TINY.weights()).freeze == frozen


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": "probe", "freeze": "none"},
        {"strategy": "probe", "freeze": "to:stage1"},
        {"strategy": "finetune", "freeze": "backbone"},
        {"strategy": "probe+finetune", "freeze": "backbone"},
    ],
    ids=str,
)
def test_a_strategy_that_contradicts_freeze_is_refused(given):
    with pytest.raises(OptionError, match="contradict"):
        settle(FitOptions(**given), TINY.weights())


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.parametrize("strategy", ["finetune", "probe+finetune"])
def test_fine_tuning_a_frozen_backbone_is_refused(colours, strategy, folds):
    with pytest.raises(OptionError, match="nothing to fine-tune"):
        tlkit.fit(colours, backbone="tiny", strategy=strategy, freeze="features", folds=folds)


def test_a_probe_that_would_train_a_kept_classifier_is_refused(colours):
    with pytest.raises(OptionError, match="a probe trains the head alone"):
        fitted(colours, strategy="probe", freeze="features", attach="append")


def test_a_probe_leaves_a_kept_classifier_alone(colours):
    result, _ = fitted(colours, strategy="probe", attach="append")
    names = {name.split(".")[0] for name in result.cut.trained_tensors()}
    assert names == {"head", "familiar"}


def test_fine_tuning_begins_where_the_probe_ended_and_keeps_nothing_worse(colours):
    probe, _ = fitted(colours, strategy="probe", refit=False)
    result, events = fitted(colours, strategy="probe+finetune", epochs=2, lr=1e-4, backbone_lr=1e-4)
    first = result.history[0]
    assert (first.number, first.val_loss) == (0, probe.best.val_loss)
    assert [one.number for one in result.history] == [0, 1, 2]
    assert result.best.val_loss == min(one.val_loss for one in result.history)
    assert any("head is in place" in one.text for one in events if isinstance(one, Note))
    # Rates that destroy: then the probe itself is kept.
    ruined, _ = fitted(
        colours, strategy="probe+finetune", epochs=2, lr=30.0, backbone_lr=30.0, optimizer="sgd"
    )
    assert ruined.best.number == 0
    for name, one in probe.cut.model.head.state_dict().items():
        assert torch.equal(one, ruined.cut.model.head.state_dict()[name]), name


def test_a_fine_tuned_head_file_holds_what_was_trained_and_no_more(colours):
    result, _ = fitted(colours, strategy="probe+finetune", freeze="to:stage1", epochs=1)
    parts = {".".join(name.split(".")[:2]) for name in result.cut.trained_tensors()}
    assert parts == {"features.stage2", "head.scale", "head.layers"}


def test_stages_that_are_never_reached_are_named(colours):
    _, events = fitted(colours, freeze="none", unfreeze_every=1, epochs=2)
    notes = [one.text for one in events if isinstance(one, Note)]
    assert any("never trained" in one and "stage1" in one for one in notes)


def test_a_validation_loss_that_is_no_number_is_never_the_best_and_alone_an_error(colours):
    losses = iter([math.nan, 0.5, math.inf])
    run = Run(colours, lambda: Verdict(loss=next(losses), accuracy=0.5, balanced_accuracy=0.5))
    ranks = [standing(run.judge(), "loss") for _ in range(3)]
    assert min(ranks) == ranks[1]
    with pytest.raises(TlkitError, match="diverged"):
        fitted(colours, freeze="none", optimizer="sgd", lr=1e30, epochs=1, batch=64)


def test_early_stopping_ends_the_run_and_says_so(colours):
    scores = iter([1.0, 0.5, 0.6, 0.7, 0.1])
    run = Run(
        colours, lambda: Verdict(loss=next(scores), accuracy=0, balanced_accuracy=0),
        patience=2, epochs=5,
    )  # fmt: skip
    records = list(run.records)
    assert [one.number for one in records if isinstance(one, Epoch)] == [1, 2, 3, 4]
    assert "epoch 4: no better validation score in 2 epochs" in records[-1].text


def test_the_best_epoch_is_the_one_that_the_monitor_says(colours):
    for monitor in ("loss", "accuracy"):
        result, _ = fitted(
            colours, freeze="none", epochs=4, monitor=monitor, optimizer="sgd", lr=0.3
        )
        rows = result.history
        if monitor == "loss":
            assert result.best.val_loss == min(one.val_loss for one in rows)
        else:
            assert result.best.val_accuracy == max(one.val_accuracy for one in rows)


# --- how it is trained ----------------------------------------------------------------------------


def test_rates_spread_over_the_stages():
    options = FitOptions(freeze="none", backbone_lr=0.1, stage_decay=0.5, lr=1.0)
    cut = build(TINY, plan_of(options), 3).cut
    names = {id(one): name for name, one in cut.model.named_parameters()}
    for group in optimizer_for(cut, options, "adamw").param_groups:
        for one in group["params"]:
            name = names[id(one)]
            want = 1.0 if name.startswith("head") else 0.1 if "stage2" in name else 0.05
            assert group["peak"] == want, name


def test_stages_begin_to_learn_one_by_one_and_are_bitwise_still_before(colours):
    run = Run(colours, unfreeze_every=2, epochs=5)
    states = [run.start, *run.after_each_epoch()]
    learnt = [changed(one, other) - {"normalise"} for one, other in itertools.pairwise(states)]
    assert learnt[:2] == [{"head"}] * 2
    assert learnt[2:4] == [{"head", "features.stage2"}] * 2
    assert learnt[4] == {"head", "features.stage2", "features.stage1"}
    assert all(one.requires_grad for one in run.cut.model.parameters())


def test_accumulated_batches_with_class_weights_are_one_step_too(colours):
    logits, labels = torch.randn(12, 3), torch.tensor([0] * 8 + [1] * 3 + [2])
    weights = torch.tensor([0.5, 1.0, 3.0])
    options = FitOptions(balance="classes")
    loss = loop.loss_for(
        compute_on("cpu", "fp32"), nn.Identity(), options, class_weights=weights, classes=3
    )
    parts = [(logits[:5], labels[:5]), (logits[5:], labels[5:])]
    masses = [loss.mass(one) for _, one in parts]
    mean = sum(loss.of(*one) * mass for one, mass in zip(parts, masses, strict=True)) / sum(masses)
    assert torch.allclose(mean, loss.of(logits, labels))


def test_accumulated_batches_are_one_step_of_a_larger_batch(colours):
    """To rounding, without BatchNorm in training mode, which sees its own batch alone."""
    ends = []
    for batch, accumulate in ((12, 1), (4, 3), (6, 2)):
        run = Run(
            colours, batch=batch, accumulate=accumulate, epochs=1, freeze="features",
            schedule="constant",
        )  # fmt: skip
        ends.append(run.after_each_epoch()[-1])
        assert changed(run.start, ends[-1]) == {"head"}
    for other in ends[1:]:
        for name, one in ends[0].items():
            assert torch.allclose(one, other[name], atol=1e-6), name


def test_the_norm_of_all_gradients_is_limited(colours, monkeypatch):
    norms = []

    def watch(optimizer, *args, **kwargs):
        members = [one for group in optimizer.param_groups for one in group["params"]]
        norms.append(torch.stack([one.grad.norm() for one in members]).norm().item())

    for clip in (0.0, 0.05):
        run = Run(colours, clip=clip, epochs=1)
        run.optimizer.register_step_pre_hook(watch)
        list(run.records)
    free, clipped = norms[: len(norms) // 2], norms[len(norms) // 2 :]
    assert max(free) > 0.05
    assert max(clipped) == pytest.approx(0.05, rel=1e-3)


def test_the_average_is_what_is_judged_and_kept_and_training_goes_on_from_the_weights(colours):
    name = "head.layers.weight"
    plain = Run(colours, epochs=2, batch=24, schedule="constant")
    weights = [one[name] for one in plain.after_each_epoch()]  # one step in each epoch
    averaged = Run(colours, epochs=2, batch=24, schedule="constant", ema=0.9)
    judged = []
    averaged.judge = lambda: judged.append(averaged.copy()[name]) or SAME
    seen = [one[name] for one in averaged.after_each_epoch()]
    # min(0.9, 2/11) after the first step, min(0.9, 3/12) after the second
    first = averaged.start[name].lerp(weights[0], 1 - 2 / 11)
    second = first.lerp(weights[1], 1 - 3 / 12)
    for one, want in zip(seen, (first, second), strict=True):
        assert torch.allclose(one, want, atol=1e-6)
    assert all(torch.equal(one, other) for one, other in zip(judged, seen, strict=True))


@pytest.mark.parametrize(
    ("given", "learnt"),
    [({}, False), ({"batchnorm": "learn"}, True), ({"weights": "none"}, True)],
    ids=str,
)
def test_statistics_of_pretrained_batchnorms_are_kept_while_their_scale_learns(
    colours, given, learnt
):
    options = {"freeze": "none", "epochs": 1, "optimizer": "sgd", "head": "bn-mlp", **given}
    result, _ = fitted(colours, **options)
    fresh = build(TINY, plan_of(result.options), 3).cut.model.state_dict()
    after = result.cut.model.state_dict()
    for name, one in fresh.items():
        if name.startswith("features") and "running" in name:
            assert torch.equal(one, after[name]) != learnt, name
    assert not torch.equal(fresh["features.stage1.1.weight"], after["features.stage1.1.weight"])
    # The head's own BatchNorm begins with statistics of nothing: it always learns.
    assert after["head.layers.0.num_batches_tracked"] > 0


def test_an_average_also_holds_batchnorms_statistics_and_its_counter(colours):
    way = {"epochs": 1, "batch": 24, "schedule": "constant", "batchnorm": "learn"}
    plain = Run(colours, **way)
    (weights,) = plain.after_each_epoch()
    (averaged,) = Run(colours, ema=0.99, **way).after_each_epoch()
    for name in ("features.stage1.1.running_mean", "features.stage1.1.running_var"):
        assert not torch.equal(weights[name], plain.start[name])
        want = plain.start[name].lerp(weights[name], 1 - 2 / 11)
        assert torch.allclose(averaged[name], want, atol=1e-6)
    counter = "features.stage1.1.num_batches_tracked"
    assert averaged[counter] == weights[counter] == plain.start[counter] + 1


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1}])
def test_blends_keep_every_pixel_between_its_images_and_shares_sum_to_one(options):
    mix = mix_for(FitOptions(**options), 3)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(0)
    blended, shares = mix(images, torch.arange(8) % 3)
    assert blended.shape == images.shape
    assert shares.shape == (8, 3)
    assert torch.allclose(shares.sum(dim=1), torch.ones(8))
    assert ((shares > 0).sum(dim=1) <= 2).all()
    low = torch.minimum(images, images.roll(1, 0))
    high = torch.maximum(images, images.roll(1, 0))
    assert ((blended >= low.float() - 1e-3) & (blended <= high.float() + 1e-3)).all()
    assert not torch.equal(blended, images.float())


def test_no_blend_is_none_and_blending_stored_features_is_refused(colours):
    assert mix_for(FitOptions(), 3) is None
    for name in ("mixup", "cutmix"):
        with pytest.raises(OptionError, match=f"--{name}"):
            fitted(colours, head="mlp", **{name: 0.2})


def test_the_loss_is_the_nll_of_the_log_softmax():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    nll = nn.functional.nll_loss(logits.log_softmax(dim=1), labels)
    assert torch.allclose(loss_of(logits, labels, None, 0.0), nll)
    shares = nn.functional.one_hot(labels, 4).float()
    assert torch.allclose(loss_of(logits, shares, None, 0.0), nll)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"momentum": 0.5, "optimizer": "adam"}, "--momentum"),
        ({"clip": 1.0}, "--clip"),
        ({"schedule": "step"}, "--schedule"),
        ({"schedule": "constant", "gamma": 0.5, "optimizer": "adamw"}, "--gamma"),
        ({"schedule": "step", "cuts": 1, "optimizer": "adamw"}, "--cuts"),
        ({"stage_decay": 0.5}, "--stage-decay"),
        ({"jitter": "40,50"}, "--jitter"),
        ({"warmup": "2", "optimizer": "adamw"}, "--warmup"),
        ({"freeze": "none", "unfreeze_every": 5, "epochs": 2}, "--unfreeze-every"),
        ({"freeze": "none", "schedule": "plateau", "patience": 3}, "--patience"),
        ({"batchnorm": "learn", "head": "mlp"}, "--batchnorm"),
        ({"jitter": "50,40", "augment": "vgg", "freeze": "none"}, "--jitter"),
        ({"jitter": "10,40", "augment": "vgg", "freeze": "none"}, "--jitter"),
    ],
    ids=str,
)
def test_options_that_would_do_nothing_or_cannot_be_are_refused(colours, given, named):
    with pytest.raises(OptionError, match=named):
        fitted(colours, **given)


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({"freeze": "none"}, (1e-3, 1e-4)),
        ({"strategy": "probe+finetune"}, (1e-4, 1e-5)),
        ({"weights": "none"}, (1e-3, 1e-3)),
        ({"freeze": "none", "lr": 0.01}, (0.01, 0.001)),
        ({"freeze": "none", "lr": 0.01, "backbone_lr": 0.5}, (0.01, 0.5)),
    ],
    ids=str,
)
def test_rates_that_are_left_open_suit_the_start(colours, given, rates):
    result, _ = fitted(colours, epochs=1, **given)
    assert (result.options.lr, result.options.backbone_lr) == pytest.approx(rates)
