"""Tracking: what a fit tells other programs that keep a record of experiments.

In: the events of a fit. Out: the same events, and on the way a small stream of records: how it
begins, numbers, how it ends. A tracker is a row in `TRACKERS`, a function of these records.
Every library is imported inside its row's function.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tlkit.errors import OptionError, briefly, pick
from tlkit.steps import Result, passed
from tlkit.train.events import Epoch, Event, FoldScore, Note


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A fit begins."""

    name: str
    """Of its run folder."""
    options: Mapping[str, Any]
    """As they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """An epoch, or a fold, is done."""

    step: int
    """From 0; grows."""
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A fit has ended, one way or another. The last record."""

    how: Literal["finished", "failed", "stopped"]
    scores: Mapping[str, float]
    """PART/SCORE."""
    options: Mapping[str, Any]
    """What `auto` became."""
    run: Path | None
    """The run folder, where there is one."""


Record = Begun | Numbers | Ended
Tell = Callable[[Record], None]


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A row of the table."""

    about: str
    needs: str
    """A module; the extra of tlkit that brings it has the tracker's name."""
    open: Callable[[str], Tell]
    """(where) -> what is told the records."""


def tracker(text: str) -> Tell:
    """What `--track NAME[:WHERE]` means.

    Raises `UnknownName`, and `OptionError` where its package is missing or it cannot begin.
    """
    name, _, where = text.partition(":")
    row = pick(TRACKERS, name, "tracker")
    if find_spec(row.needs) is None:
        raise OptionError(
            f"--track {name} needs a package that is not installed",
            found=f"no {row.needs}",
            expected=f"the extra tlkit[{name}]",
            do=f"pip install 'tlkit[{name}]'",
        )
    return row.open(where)


def tracked(
    events: Generator[Event, None, Result],
    tell: Tell,
    begun: Begun,
    ended: Callable[[Result], Ended],
) -> Generator[Event, None, Result]:
    """The events, each told. A tracker that fails later is named, and the fit goes on without it.

    Raises `OptionError` for one that fails at once.
    """
    lost = False

    def note(record: Record) -> Generator[Event, None, None]:
        nonlocal lost
        # Of the end it is told in any case: else it would wait for ever.
        if lost and not isinstance(record, Ended):
            return
        try:
            tell(record)
        except Exception as error:
            if lost:
                return
            lost = True
            yield Note(text=f"the tracker is told nothing more: {briefly(error)}")

    try:
        _begin(tell, begun)
        step = -1

        def tell_too(event: Event) -> Iterator[Event]:
            nonlocal step
            yield event
            if isinstance(event, Epoch | FoldScore):
                step = max(step + 1, event.number)
                yield from note(Numbers(step=step, values=_numbers(event)))

        result = yield from passed(events, tell_too)
    except BaseException as error:
        stopped = isinstance(error, GeneratorExit | KeyboardInterrupt)
        how: Literal["failed", "stopped"] = "stopped" if stopped else "failed"
        with contextlib.suppress(Exception):  # the error that is being raised tells more
            tell(Ended(how=how, scores={}, options={}, run=None))
        raise
    yield from note(ended(result))
    return result


def _begin(tell: Tell, begun: Begun) -> None:
    """Raises `OptionError`."""
    try:
        tell(begun)
    except Exception as error:  # each has its own
        raise OptionError(
            "the tracker cannot begin",
            found=briefly(error),
            expected="a place that it can write to",
            do="correct what follows --track, or leave it out",
        ) from error


def _numbers(event: Epoch | FoldScore) -> dict[str, float]:
    """Its fields that are numbers, but for its own."""
    values = {one.name: getattr(event, one.name) for one in fields(event)}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and name not in ("number", "of")
    }


def _tensorboard(where: str) -> Tell:
    """Scalars, options as text, and the plots of the run folder, in WHERE/RUN."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = None

    def tell(record: Record) -> None:
        nonlocal writer
        if isinstance(record, Begun):
            writer = SummaryWriter(str(Path(where or "tensorboard") / record.name))
            writer.add_text("options", _table(record.options))
        elif isinstance(record, Numbers):
            for name, value in record.values.items():
                writer.add_scalar(name, value, record.step)
        else:
            for name, value in record.scores.items():
                writer.add_scalar(name, value, 0)
            for name in ("curves", "confusion"):
                picture = record.run / f"{name}.png" if record.run else None
                if picture is not None and picture.is_file():
                    writer.add_image(name, _pixels(picture), 0, dataformats="HWC")
            if record.options:
                writer.add_text("options as decided", _table(record.options))
            writer.close()
            return
        writer.flush()

    return tell


def _table(options: Mapping[str, Any]) -> str:
    """In Markdown, as TensorBoard shows text."""
    return "\n".join(["| option | value |", "| --- | --- |"] + [
        f"| {name} | {value} |" for name, value in options.items()
    ])  # fmt: skip


def _pixels(picture: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """What MLflow's libraries say of each other is of no use to whoever fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


EXPERIMENT = "tlkit"
"""MLflow's word for what runs belong to, where MLFLOW_EXPERIMENT_NAME names no other."""


def _mlflow(where: str) -> Tell:
    """A run in the tracking server or database WHERE, else in that of MLflow's own settings."""
    # It would report its use to its makers.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with _unwarned():
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

    client: Any = None
    run = ""

    def params(options: Mapping[str, Any]) -> list[Any]:
        return [Param(name, str(value)) for name, value in options.items()]

    def metrics(values: Mapping[str, float], step: int) -> list[Any]:
        now = int(time.time() * 1000)
        return [Metric(name, value, now, step) for name, value in values.items()]

    @_unwarned()
    def tell(record: Record) -> None:
        nonlocal client, run
        if isinstance(record, Begun):
            client = MlflowClient(tracking_uri=where or None)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            there = client.get_experiment_by_name(name)
            experiment = there.experiment_id if there else client.create_experiment(name)
            run = client.create_run(experiment, run_name=record.name).info.run_id
            client.log_batch(run, params=params(record.options))
        elif isinstance(record, Numbers):
            client.log_batch(run, metrics=metrics(record.values, record.step))
        else:
            decided = {f"decided.{name}": value for name, value in record.options.items()}
            client.log_batch(run, metrics=metrics(record.scores, 0), params=params(decided))
            if record.run is not None:
                client.log_artifacts(run, str(record.run))
            states = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
            client.set_terminated(run, status=states[record.how])

    return tell


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker(
        about="event files in WHERE/RUN, or tensorboard/RUN, for `tensorboard --logdir`",
        needs="tensorboard",
        open=_tensorboard,
    ),
    "mlflow": Tracker(
        about="a run in the tracking server or database WHERE, or where MLflow's settings say",
        needs="mlflow",
        open=_mlflow,
    ),
}
