"""Checkpoint: a training as it stands between two steps, from which it goes on bit for bit.

In: a `Standing`. Out: files in a folder of their own, of which the newest whole one is read again.
A step's random numbers and an epoch's order are functions of the seed and their number (loop.py,
feeds.py), so what is written is tensors and counts, and nothing of a random generator. No pickle:
safetensors, with the counts as JSON. A checkpoint of another fit is refused. One whose checksum
does not match is named as damaged, and the one before it is taken.
Next door: loop.py (whose steps are counted), run.py (who asks).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tlkit.card import sha256_of
from tlkit.errors import RunFolderError, briefly
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

FORMAT = 2
"""Of what a checkpoint says of itself. 1 is tlkit 0.1.0's, where a copied image was another one."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a training is made of, besides what its options and its folder say."""

    counts: Mapping[str, Any]
    """Plain values, as JSON has them."""
    tensors: Mapping[str, Tensor]


class _Damaged(Exception):
    """A checkpoint whose bytes are not those that were written; says why."""


class Checkpoints:
    """The checkpoints of one fit, which may consist of several trainings."""

    def __init__(self, folder: Path, fit: Mapping[str, Any], *, resume: bool) -> None:
        """`fit` tells one fit from another; without `resume` what is there is not read.

        A value of `fit` that is a record, {"digest": ...}, is named and not shown where it differs.
        Raises `RunFolderError` where there is any of another fit: it would be lost; and where one
        may not be read.
        """
        self.folder = folder
        self._fit = json.loads(json.dumps(fit))
        self._resume = resume
        self._damaged: dict[Path, str] = {}
        for path in folder.glob("*.safetensors") if resume else ():
            # Of a damaged one nothing can be known here; `read` names it.
            with contextlib.suppress(_Damaged, FileNotFoundError):
                self._must_be_this(_stated(path))

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

    def read(self, training: str) -> tuple[Standing | None, tuple[str, ...]]:
        """Return the newest checkpoint that is whole, and notes about newer ones that are damaged.

        None where there is none, or none was to be read. Raises `RunFolderError` for one that may
        not be read.
        """
        notes: list[str] = []
        for path in reversed(self._files(training)) if self._resume else ():
            try:
                standing = _read(path)
            except FileNotFoundError:
                continue
            except _Damaged as damage:
                self._damaged[path] = str(damage)
                notes.append(f"the checkpoint {path} is damaged: {damage}")
                continue
            if notes:
                notes.append(f"the checkpoint before it is whole and is used: {path}")
            return standing, tuple(notes)
        if notes:
            notes.append("no other checkpoint of this training is left: it begins at the start")
        return None, tuple(notes)

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
                "format": FORMAT,
                "fit": self._fit,
                "counts": standing.counts,
                "tensors": digest(tensors.items()),
            }
        )
        data = save(tensors, {KEY: text, DIGEST: sha256_of(text)})
        write_bytes(self.folder / f"{training}-{number:09d}.safetensors", data)
        # A damaged one must not take the place of the last that is whole.
        whole = [path for path in there if path not in self._damaged]
        for old in [*(path for path in there if path in self._damaged), *whole[: 1 - KEPT]]:
            old.unlink(missing_ok=True)

    def _files(self, training: str) -> list[Path]:
        """In the order in which they were written."""
        return sorted(self.folder.glob(f"{training}-{'[0-9]' * 9}.safetensors"))

    def _must_be_this(self, stated: Mapping[str, Any]) -> None:
        fit = stated["fit"]
        if stated.get("format") != FORMAT:
            version = fit.get("version of tlkit", "another version")
            raise RunFolderError(
                f"the fit that was interrupted is of another tlkit: {self.folder}",
                found=f"checkpoints of tlkit {version} in format {stated.get('format', 1)}",
                expected=f"format {FORMAT}",
                do=f"go on with tlkit {version}; to keep it and begin a fit, name another folder "
                "with --out",
            )
        other = [name for name in {**self._fit, **fit} if self._fit.get(name) != fit.get(name)]
        if other:
            raise RunFolderError(
                f"the fit that was interrupted is not this one: {self.folder}",
                found=", ".join(
                    _difference(name, fit.get(name), self._fit.get(name)) for name in sorted(other)
                ),
                expected="the same options, images and versions as when it was interrupted",
                do="give these again to go on with it; to keep it and fit this one too, name "
                "another folder with --out",
            )


class Keeper:
    """The checkpoints of one training: what to go on from, and when to write the next.

    Of several processes the first reads, for all, and writes: all stand at the same.
    """

    def __init__(self, checkpoints: Checkpoints, training: str) -> None:
        self._checkpoints = checkpoints
        self._training = training
        self._found: Standing | None
        self.notes: tuple[str, ...]
        """What the user has to know of damaged checkpoints."""
        self._found, self.notes = here().agree(
            checkpoints.read(training) if here().first else (None, ())
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


def _difference(name: str, before: Any, now: Any) -> str:
    """Say in which way two fits differ in this."""
    if isinstance(before, Mapping) or isinstance(now, Mapping):
        return f"different {name}"
    was, now_is = ("not stated" if value is None else value for value in (before, now))
    return f"different {name} ({now_is}, it was {was})"


def _stated(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself.

    Raises `_Damaged`; `FileNotFoundError` where it has gone; `RunFolderError` where it may not be
    read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not path.stat().st_size:
            raise _Damaged("it is empty")
        with path.open("rb"), safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except PermissionError as error:
        raise RunFolderError(
            f"the checkpoint {path} cannot be read",
            found=briefly(error),
            expected="a file that this user may read",
            do=f"chmod u+r {shlex.quote(str(path))}",
        ) from error
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise _Damaged(f"it is cut short, or not a checkpoint ({briefly(error)})") from error
    text = metadata.get(KEY, "")
    if sha256_of(text) != metadata.get(DIGEST):
        raise _Damaged("what it says of itself does not match its checksum")
    stated: dict[str, Any] = json.loads(text)
    return stated


def _read(path: Path) -> Standing:
    """Return what was written. Raises as `_stated` does."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    stated = _stated(path)
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise _Damaged(f"its tensors cannot be read ({briefly(error)})") from error
    if digest(tensors.items()) != stated["tensors"]:
        raise _Damaged("its tensors do not match their checksum")
    return Standing(counts=stated["counts"], tensors=tensors)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
