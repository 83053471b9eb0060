"""Checkpoint: a training as it stands between two steps, from which it goes on bit for bit.

In: a `Standing`. Out: files in a folder of their own, of which the newest whole one is read again.
A step's random numbers and an epoch's order are functions of the seed and their number (loop.py,
feeds.py), so what is written is tensors and counts, and nothing of a random generator. No pickle:
safetensors, with the counts as JSON. A checkpoint of another fit is refused, and so is none read
that a digest does not vouch for.
Next door: loop.py (whose steps are counted), run.py (who asks).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tlkit.card import sha256_of
from tlkit.errors import RunFolderError
from tlkit.files import disk_errors, write_bytes
from tlkit.ranks import here
from tlkit.weights import digest

KEPT = 2
"""Checkpoints of a training on the disk: should the newest be damaged, there is one before it."""

EVERY_S = 60.0
"""Between two checkpoints, at least."""

SHARE = 0.05
"""Of the time, at most, that writing takes."""

KEY, DIGEST = "tlkit.checkpoint", "tlkit.checkpoint.sha256"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a training is made of, besides what its options and its folder say."""

    counts: Mapping[str, Any]
    """Plain values, as JSON has them."""
    tensors: Mapping[str, Tensor]


class Checkpoints:
    """The checkpoints of one fit, which may consist of several trainings."""

    def __init__(self, folder: Path, fit: Mapping[str, Any], *, resume: bool) -> None:
        """`fit` tells one fit from another; without `resume` what is there is not read.

        Raises `RunFolderError` where there is any of another fit: it would be lost.
        """
        self.folder = folder
        self._fit = json.loads(json.dumps(fit))
        self._resume = resume
        for path in folder.glob("*.safetensors") if resume else ():
            if (told := _told(path)) is not None:
                self._must_be_this(told["fit"])

    def of(self, training: str) -> Keeper:
        """Those of one training, by its name."""
        return Keeper(self, training)

    @property
    def there(self) -> bool:
        """Whether there is any, of whatever fit."""
        return any(self.folder.glob("*.safetensors"))

    def clear(self) -> None:
        """Delete the folder: the fit is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear_files(self) -> None:
        """Delete the checkpoints: the fit begins anew."""
        with disk_errors(self.folder):
            for one in self.folder.glob("*.safetensors"):
                one.unlink()

    def read(self, training: str) -> Standing | None:
        """The newest that is whole; None where there is none, or none was to be read.

        Raises `RunFolderError` for one of another fit.
        """
        for path in reversed(self._files(training)) if self._resume else ():
            found = _read(path)
            if found is not None:
                return found
        return None

    def write(self, training: str, standing: Standing) -> None:
        """Write the next one, and delete what is no longer needed. Raises `DiskError`."""
        from safetensors.torch import save

        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        there = self._files(training)
        number = _number(there[-1]) + 1 if there else 1
        tensors = {name: one.detach().cpu().contiguous() for name, one in standing.tensors.items()}
        text = json.dumps(
            {
                "fit": self._fit,
                "counts": standing.counts,
                "tensors": digest(tensors.items()),
            }
        )
        data = save(tensors, {KEY: text, DIGEST: sha256_of(text)})
        write_bytes(self.folder / f"{training}-{number:09d}.safetensors", data)
        for old in there[: 1 - KEPT]:
            old.unlink(missing_ok=True)

    def _files(self, training: str) -> list[Path]:
        """In the order in which they were written."""
        return sorted(self.folder.glob(f"{training}-{'[0-9]' * 9}.safetensors"))

    def _must_be_this(self, fit: Mapping[str, Any]) -> None:
        other = [name for name in {**self._fit, **fit} if self._fit.get(name) != fit.get(name)]
        if other:
            raise RunFolderError(
                f"the fit that was interrupted is not this one: {self.folder}",
                found=f"another {', '.join(sorted(other))}",
                expected="the same command, folder and versions",
                do="give the same command, or leave --resume out to begin anew",
            )


class Keeper:
    """The checkpoints of one training: what to go on from, and when to write the next.

    Of several processes the first reads, for all, and writes: all stand at the same.
    """

    def __init__(self, checkpoints: Checkpoints, training: str) -> None:
        self._checkpoints = checkpoints
        self._training = training
        self._found: Standing | None = here().agree(
            checkpoints.read(training) if here().first else None
        )
        self._next = time.monotonic() + EVERY_S

    @property
    def there(self) -> bool:
        """Whether there is anything to go on from."""
        return self._found is not None

    def take(self) -> Standing | None:
        """What to go on from; it is read and checked once, and given out once."""
        found, self._found = self._found, None
        return found

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return here().first and time.monotonic() >= self._next

    def write(self, standing: Standing) -> None:
        """Write it now. Raises `DiskError`."""
        if not here().first:
            return
        began = time.monotonic()
        self._checkpoints.write(self._training, standing)
        took = time.monotonic() - began
        self._next = time.monotonic() + max(EVERY_S, took / SHARE)


def _told(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None for a file that is not whole, or has gone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        text = metadata.get(KEY, "")
        if sha256_of(text) != metadata.get(DIGEST):
            return None
        stated: dict[str, Any] = json.loads(text)
    except (SafetensorError, OSError, ValueError):
        return None
    return stated


def _read(path: Path) -> Standing | None:
    """What was written; None for a file that is not whole, or has gone."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    stated = _told(path)
    if stated is None:
        return None
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError):
        return None
    if digest(tensors.items()) != stated["tensors"]:
        return None
    return Standing(counts=stated["counts"], tensors=tensors)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
