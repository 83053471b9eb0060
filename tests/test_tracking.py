"""Tracking: what other programs are told of a fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import tlkit
from tlkit import tracking
from tlkit.cli import main
from tlkit.errors import OptionError, UnknownName
from tlkit.tracking import TRACKERS, Begun, Ended, Numbers, Tracker, tracker
from tlkit.train.events import Epoch, Note

PHOTOS = {"backbone": "tiny", "optimizer": "adamw", "epochs": 3}


@pytest.fixture
def told(monkeypatch):
    """What a tracker called list is told."""
    records = []
    row = Tracker(about="", needs="json", open=lambda where: records.append)
    monkeypatch.setattr(tracking, "TRACKERS", {"list": row})
    return records


def test_a_fit_tells_how_it_begins_its_epochs_and_how_it_ends(colours, told):
    made = tlkit.fit(colours, track="list", **PHOTOS)
    begun, *numbers, ended = told
    assert isinstance(begun, Begun)
    assert (begun.name, begun.options["epochs"]) == (made.run.name, 3)
    assert [one.step for one in numbers] == [1, 2, 3]
    assert [one.values["val_loss"] for one in numbers] == [one.val_loss for one in made.history]
    assert isinstance(ended, Ended)
    assert (ended.how, ended.run) == ("finished", made.run)
    assert ended.scores["validation/accuracy"] == made.validation.accuracy
    assert ended.options["optimizer"] == "adamw"


def test_of_a_cross_validation_the_folds_are_told(colours, told):
    made = tlkit.fit(colours, track="list", backbone="tiny", folds=2)
    numbers = [one for one in told if isinstance(one, Numbers) and "images" in one.values]
    assert [one.values["accuracy"] for one in numbers] == [
        one.validation.accuracy for one in made.folds
    ]
    assert told[-1].scores["out_of_fold/accuracy"] == made.out_of_fold.accuracy


def test_steps_grow_when_epochs_are_counted_anew(colours, told):
    tlkit.fit(colours, track="list", backbone="tiny", strategy="probe+finetune", epochs=2, batch=8)
    steps = [one.step for one in told if isinstance(one, Numbers)]
    assert steps == sorted(set(steps))
    assert len(steps) > 3


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_fit_that_does_not_end_is_told_too(colours, told, monkeypatch, how):
    if how == "stopped":
        events = tlkit.fit_events(colours, tlkit.FitOptions(**PHOTOS), track="list")
        while not isinstance(next(events), Epoch):
            pass
        events.close()
    else:
        monkeypatch.setattr("tlkit.fitting.confusion", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tlkit.fit(colours, track="list", **PHOTOS)
    assert told[-1] == Ended(how=how, scores={}, options={}, run=None)


def test_a_tracker_that_fails_on_the_way_is_named_once_and_the_fit_goes_on(colours, monkeypatch):
    def tell(record):
        if not isinstance(record, Begun):
            raise ConnectionError("the server is gone")

    row = Tracker(about="", needs="json", open=lambda where: tell)
    monkeypatch.setattr(tracking, "TRACKERS", {"list": row})
    events = list(tlkit.fit_events(colours, tlkit.FitOptions(**PHOTOS), track="list"))
    notes = [one.text for one in events if isinstance(one, Note) and "tracker" in one.text]
    assert notes == ["the tracker is told nothing more: ConnectionError: the server is gone"]
    assert Path("runs").is_dir()


def test_one_that_cannot_begin_stops_the_fit_before_it_reads_an_image(colours, tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(OptionError, match="cannot begin"):
        tlkit.fit(colours, track=f"tensorboard:{occupied}/logs", **PHOTOS)
    assert not Path("runs").exists()


def test_unknown_and_missing_ones_say_what_to_do(monkeypatch):
    with pytest.raises(UnknownName, match="tensorboard, mlflow"):
        tracker("wandb")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for name in TRACKERS:
        with pytest.raises(OptionError, match=rf"tlkit\[{name}\]"):
            tracker(name)


def test_tensorboard_reads_what_was_written(colours):
    ran = CliRunner().invoke(
        main,
        ["fit", str(colours), "--backbone", "tiny", "--optimizer", "adamw", "--epochs", "3",
         "--track", "tensorboard", "--out", "runs/one"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator("tensorboard/one")
    found.Reload()
    tags = found.Tags()
    assert [one.step for one in found.Scalars("val_accuracy")] == [1, 2, 3]
    assert "validation/accuracy" in tags["scalars"]
    assert set(tags["images"]) == {"curves", "confusion"}
    assert "options/text_summary" in tags["tensors"]


def test_mlflow_reads_what_was_written(colours, tmp_path):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    made = tlkit.fit(colours, track=f"mlflow:{store}", **PHOTOS)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("tlkit")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [one.step for one in client.get_metric_history(run.info.run_id, "val_loss")]
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert (run.info.run_name, run.info.status) == (made.run.name, "FINISHED")
    assert run.data.params["epochs"] == "3"
    assert run.data.params["decided.optimizer"] == "adamw"
    assert run.data.metrics["validation/accuracy"] == made.validation.accuracy
    assert steps == [1, 2, 3]
    assert {"head.safetensors", "metrics.json"} <= names


def test_a_fit_that_is_stopped_at_an_epoch_goes_on_from_there(colours):
    options = tlkit.FitOptions(**PHOTOS)
    events = tlkit.fit_events(colours, options, out="stopped")
    while not (isinstance(event := next(events), Epoch) and event.number == 2):
        pass
    events.close()
    again = list(tlkit.fit_events(colours, options, out="stopped", resume=True))
    assert any("goes on from step" in one.text for one in again if isinstance(one, Note))
    whole = tlkit.fit(colours, out="whole", **PHOTOS)
    one, other = (load_file(place) for place in ("stopped/head.safetensors", whole.head))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
