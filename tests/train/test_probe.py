"""The solved head."""

from functools import partial

import numpy as np
import pytest
import scipy.optimize
import torch
from banks import bank_of, every
from sklearn.linear_model import LogisticRegression

from tlkit.model.build import Plan, build
from tlkit.model.device import compute_on
from tlkit.model.heads import make_head
from tlkit.testing import TINY
from tlkit.train.judge import Verdict
from tlkit.train.probe import (
    STRONGEST,
    WEAKEST,
    _Plain,
    _Span,
    _start,
    penalties,
    resolve,
    solve,
)

PLAN = Plan(
    weights="default", attach="replace", head="linear", hidden=1, dropout=0.0, pool="keep",
    freeze="features", seed=0,
)  # fmt: skip


def bank(count=90, views=2):
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    values = torch.randn(count, views, 16, generator=random) + labels[:, None, None] * 0.7
    return bank_of(values, labels)


def judge():
    return Verdict(loss=0.0, accuracy=0.0, balanced_accuracy=0.0)


def test_the_solution_is_that_of_scikit_learn():
    data = bank()
    cut = build(TINY, PLAN, 3).cut
    cut.model.head.scale.fit_to(data.blocks())
    inputs = cut.model.head.scale(every(data)).numpy()
    labels = data.labels.repeat_interleave(2).numpy()
    for record in solve(
        cut, compute_on("cpu", "fp32"), data, judge, path=3, class_weights=None, smoothing=0.0
    ):
        # scikit-learn weighs the sum of losses by C, tlkit the penalty on their mean.
        other = LogisticRegression(C=1 / (record.rate * len(labels)), tol=1e-8, max_iter=2000)
        other.fit(inputs, labels)
        ours = cut.model.head(every(data)).softmax(dim=1).detach().numpy()
        assert np.abs(ours - other.predict_proba(inputs)).max() < 2e-3


def solved(data, penalties_tried=4, **changes):
    """The head after a path, and its records."""
    cut = build(TINY, PLAN, 3).cut
    cut.model.head = make_head("linear", data.shape[0], 3, 1, 0.0)
    cut.model.head.scale.fit_to(data.blocks())
    plain = {"class_weights": None, "smoothing": 0.0}
    records = list(
        solve(
            cut,
            compute_on("cpu", "fp32"),
            data,
            judge,
            path=penalties_tried,
            **{**plain, **changes},
        )
    )
    return cut, records


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    "changes", [{}, {"smoothing": 0.1, "class_weights": torch.tensor([1.0, 3.0, 0.5])}], ids=str
)
def test_in_the_span_of_few_images_the_minimum_is_the_same(monkeypatch, changes, copies):
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 3
    values = torch.randn(40, 1, 300, generator=random) + labels[:, None, None] * 0.2
    # Twice the same images: the span has fewer dimensions than there are rows.
    data = bank_of(values.repeat(copies, 1, 1), labels.repeat(copies))
    inside, records = solved(data, **changes)
    resolve(
        inside, compute_on("cpu", "fp32"), [data], penalty=records[-1].rate,
        **{"class_weights": None, "smoothing": 0.0, **changes},
    )  # fmt: skip
    again = inside.model.head(values[:, 0]).detach()
    inside, _ = solved(data, **changes)
    monkeypatch.setattr("tlkit.train.probe.MOST_IN_SPAN", 0)
    whole, others = solved(data, **changes)
    for one, other in zip(records, others, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3, abs=1e-4)
    one, other = (cut.model.head(values[:, 0]).detach() for cut in (inside, whole))
    assert torch.allclose(one.softmax(dim=1), other.softmax(dim=1), atol=2e-3)
    assert torch.allclose(one.softmax(dim=1), again.softmax(dim=1), atol=2e-3)
    strange = torch.randn(50, 300, generator=random)
    one, other = (cut.model.head(strange).softmax(dim=1) for cut in (inside, whole))
    assert torch.allclose(one, other, atol=1e-2)


def test_weaker_penalties_fit_the_training_images_better():
    cut = build(TINY, PLAN, 3).cut
    steps = solve(
        cut, compute_on("cpu", "fp32"), bank(), judge, path=6, class_weights=None, smoothing=0.0
    )
    losses = [one.train_loss for one in steps]
    assert losses == sorted(losses, reverse=True)


def test_class_weights_and_smoothing_change_the_solution():
    def weights(**changes):
        cut = build(TINY, PLAN, 3).cut
        plain = {"class_weights": None, "smoothing": 0.0}
        list(solve(cut, compute_on("cpu", "fp32"), bank(), judge, path=1, **{**plain, **changes}))
        return cut.model.head.layers.weight.detach()

    plain = weights()
    assert not torch.allclose(plain, weights(smoothing=0.2), atol=1e-3)
    assert not torch.allclose(
        plain, weights(class_weights=torch.tensor([1.0, 5.0, 1.0])), atol=1e-3
    )


def test_solving_on_two_banks_is_solving_on_their_images_however_many_views_each_has():
    data = bank(views=1)
    halves = [
        bank_of(every(data)[part][:, None].expand(-1, views, -1), data.labels[part])
        for part, views in ((slice(0, 50), 3), (slice(50, 90), 1))
    ]
    found = []
    for banks in ([data], halves):
        cut = build(TINY, PLAN, 3).cut
        resolve(
            cut, compute_on("cpu", "fp32"), banks, penalty=0.01, class_weights=None, smoothing=0.1
        )
        found.append(cut.model.head(every(data)).softmax(dim=1))
    assert torch.allclose(*found, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_penalties_fall_evenly_within_their_range(count):
    path = penalties(count)
    assert len(path) == count
    assert path == sorted(path, reverse=True)
    assert STRONGEST >= path[0] >= path[-1] >= WEAKEST
    steps = np.diff(np.log(path))
    assert np.allclose(steps, steps[:1])


def test_in_parts_the_minimum_is_the_same(monkeypatch):
    whole, records = solved(bank())
    monkeypatch.setattr("tlkit.train.probe.MOST_IN_MEMORY", 0)
    monkeypatch.setattr("tlkit.train.bank.IN_BLOCK", 16 * 25)
    parts, others = solved(bank())
    for one, other in zip(records, others, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
    probabilities = [cut.model.head(every(bank())).softmax(dim=1) for cut in (whole, parts)]
    assert torch.allclose(*probabilities, atol=1e-3)


MINIMIZE = scipy.optimize.minimize


def counted(passes, *given, **more):
    found = MINIMIZE(*given, **more)
    passes.append(found.nfev)
    return found


@pytest.mark.parametrize("parts", [False, True])
def test_with_many_rows_the_minimum_is_the_same_and_found_in_fewer_passes(monkeypatch, parts):
    data = bank(count=300)
    # One feature says what another does, and the features are not alike steep.
    values = torch.stack([data.at(np.arange(300), view) for view in range(2)], dim=1)
    values[..., 1] = values[..., 0]
    values[..., :8] = values[..., :8].cumsum(dim=-1)
    data = bank_of(values, data.labels)
    if parts:
        monkeypatch.setattr("tlkit.train.probe.MOST_IN_MEMORY", 16 * 64)
        monkeypatch.setattr("tlkit.train.bank.IN_BLOCK", 16 * 25)
    found = {}
    for rows in (8, 1 << 20):
        monkeypatch.setattr("tlkit.train.probe.MANY_ROWS", rows)
        passes = []
        monkeypatch.setattr(scipy.optimize, "minimize", partial(counted, passes))
        cut, records = solved(data, penalties_tried=8)
        found[rows] = cut.model.head(every(data)).softmax(dim=1), records, sum(passes)
    (p, records, passes), (plain_p, plain_records, plain_passes) = found.values()
    assert [one.train_loss for one in records] == pytest.approx(
        [one.train_loss for one in plain_records], rel=1e-4
    )
    assert torch.allclose(p, plain_p, atol=5e-3)
    assert passes < plain_passes


def test_a_layer_on_another_device_is_started_from_on_the_processor():
    """By tensors without numbers: they tell where they would be."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        layer = torch.nn.Linear(16, 3, device="cuda")
        basis = torch.empty(16, 4, dtype=torch.float64)
        inputs = torch.empty(4, 4, dtype=torch.float64)
        for span, width in (
            (_Span(blocks=lambda: iter([inputs]), numbers=16, basis=basis), 4),
            (_Span(blocks=lambda: iter([inputs]), numbers=16), 16),
        ):
            start = _start(_Plain(), span, layer)
            assert (start.device.type, start.dtype) == ("cpu", torch.float64)
            assert start.shape == (3, width + 1)
