"""Errors: what can go wrong, and what to do about it.

Every error that tlkit raises on purpose is a `TlkitError` and says four things: what it is about,
what was found, what was expected, and what to do. The command line prints them and exits with 2;
nothing else in the package prints or exits.

    TlkitError
    ├── OptionError          an option has a value it cannot have, or one that would be ignored
    │   ├── OptionWithoutEffect   an option that was set and would be ignored
    │   └── UnknownName      a name that is not in a table: lists what is, and the nearest
    ├── DataError            images or labels, given from Python, that cannot be learnt from
    ├── FolderError          a folder that is not an image folder, or too small to learn from
    ├── ImageError           files that are not readable images, all of them in one error
    ├── PluginError          a backbone plugin that is missing, broken, doubled or out of contract
    ├── WeightsError         weights that are not on the disk, cannot be fetched or do not fit
    ├── HeadFileError        a head file that is cut off, altered, too new or does not fit
    ├── TrainingError        a training that cannot go on: its loss is no number, or no memory
    ├── AnswerError          a head or network whose answer is not a finite number
    ├── ExportError          a network that another runtime cannot take, or answers otherwise
    ├── RunFolderError       a run folder that exists already, or cannot be written
    │   └── FitEnded         the fit to go on with has ended: its run folder is there and whole
    ├── ClusterError         machines that cannot be reached, or are not set up alike
    ├── NotEnoughMemory      the machine has no memory left
    └── DiskError            the disk is full or not writable

Here stands only what every room may use: this module imports nothing of tlkit.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
"""Of a distribution (PEP 508)."""

VERSION = re.compile(
    r"(?:\d{1,9}!)?\d{1,9}(?:\.\d{1,9}){0,9}(?:(?:a|b|rc)\d{1,9})?(?:\.post\d{1,9})?(?:\.dev\d{1,9})?"
    r"(?:\+[a-z0-9]+(?:[._-][a-z0-9]+){0,9})?",
    re.ASCII,
)
"""Of a distribution (PEP 440), written as its metadata has it."""


class TlkitError(Exception):
    """An error that says what was found, what was expected and what to do.

    `about` is one line; the three others may have several. All text is shown with control
    characters escaped, because file names and foreign files can carry any of them.
    """

    def __init__(self, about: str, *, found: str, expected: str, do: str) -> None:
        super().__init__(about, found, expected, do)
        self.about = printable(about).replace("\n", "\\n")
        self.found = printable(found)
        self.expected = printable(expected)
        self.do = printable(do)

    def __str__(self) -> str:
        lines = [self.about]
        for label, text in (("found", self.found), ("expected", self.expected), ("do", self.do)):
            first, *rest = text.splitlines() or [""]
            lines.append(f"  {label:<9} {first}")
            lines.extend(f"  {'':<9} {line}" for line in rest)
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.about, self.found, self.expected, self.do)


def _rebuild(kind: type[TlkitError], about: str, found: str, expected: str, do: str) -> TlkitError:
    return kind(about, found=found, expected=expected, do=do)


class OptionError(TlkitError):
    """An option has a value that it cannot have, or one that would be ignored."""


class OptionWithoutEffect(OptionError):
    """An option that was set and would be ignored."""

    names: tuple[str, ...] = ()
    """The options."""


class OptionWithoutEffectWarning(UserWarning):
    """An option has no effect beside the others; `tlkit.ImageClassifier` goes on without it."""


class UnknownName(OptionError):
    """A name that is not in a table of names."""


class DataError(TlkitError, ValueError):
    """Images or labels, given from Python, that cannot be learnt from or looked at."""


class FolderError(TlkitError):
    """A folder that is not an image folder, or is too small to learn from."""


class ImageError(TlkitError):
    """One or more files that are not readable images."""


class PluginError(TlkitError):
    """A backbone plugin that is missing, broken, doubled or out of contract."""


class WeightsError(TlkitError):
    """Weights that are not on the disk, cannot be fetched, or do not fit the network."""


class HeadFileError(TlkitError):
    """A head file that is cut off, altered, made by a newer tlkit, or does not fit."""


class TrainingError(TlkitError):
    """A training that cannot go on: its loss is no longer a number, or there is no memory."""


class AnswerError(TlkitError):
    """A head, or a network in front of one, whose answer is not a finite number."""


class ExportError(TlkitError):
    """A network that another runtime cannot take, or answers otherwise than tlkit."""


class RunFolderError(TlkitError):
    """A run folder that exists already, or none where one is needed."""


class FitEnded(RunFolderError):
    """The fit that was to go on has ended: its run folder is there and whole."""

    run: Path | None = None
    """The run folder."""


class ClusterError(TlkitError):
    """Machines that are to share work cannot be reached, or are not set up alike."""


class NotEnoughMemory(TlkitError):
    """The machine has not the memory that the work needs."""


class DiskError(TlkitError):
    """The disk is full, or a path on it cannot be read or written."""


REMEDIES = {
    "ENOSPC": "free some space or choose another place",
    "EDQUOT": "free some space or choose another place",
    "EFBIG": "free some space or choose another place",
    "EROFS": "choose a place that can be written",
    "EACCES": "give the permission, or choose another place",
    "EPERM": "give the permission, or choose another place",
    "EIO": "check the disk, or choose another place",
    "EMFILE": "allow more open files: ulimit -n 4096",
    "ENFILE": "end programs that hold many files open",
}
"""What to do about the errors of the operating system for which no program is to blame."""


def remedy(error: OSError) -> str:
    """Return what to do about an error of the operating system; empty for one that is no such."""
    return REMEDIES.get(errno.errorcode.get(error.errno or 0, ""), "")


def machine_error(error: BaseException) -> TlkitError | None:
    """Return the error that says what the machine lacks (space, permission, memory), if it does.

    The causes of `error` are searched too, and what libraries say of the system's error in words.
    None where the machine is not to blame: then `error` is about what it was raised by.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        known = _memory_error(cause) or _disk_error(cause)
        if known is not None:
            return known
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def raise_machine_error(error: BaseException) -> None:
    """Raise what `machine_error` returns, if anything: before `error` is explained otherwise."""
    known = machine_error(error)
    if known is not None:
        raise known from error


def _disk_error(error: BaseException) -> DiskError | None:
    number = error.errno if isinstance(error, OSError) else _number_in(str(error))
    said = os.strerror(number or 0)
    failure = OSError(number or 0, said)
    name = getattr(error, "filename", None)
    # A network that refuses says the same, of no file.
    refused = number in (errno.EACCES, errno.EPERM) and name is None
    if refused or not remedy(failure):
        return None
    return DiskError(
        f"{os.fsdecode(name)} cannot be read or written"
        if isinstance(name, str | bytes | os.PathLike)
        else "a file cannot be read or written",
        found=said if isinstance(error, OSError) else briefly(error),
        expected="a disk with room, and the permission to use it",
        do=remedy(failure),
    )


def _number_in(text: str) -> int:
    """Return the number of the system's error that a library quotes, as Rust and C++ do; else 0."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        if f"(os error {number})" in text or os.strerror(number) in text:
            return number
    return 0


def _memory_error(error: BaseException) -> NotEnoughMemory | None:
    """Python's own, and those of torch: of a GPU by its name, of the CPU by its text."""
    texts = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
    lacking = (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(text in str(error) for text in texts)
    )
    if not lacking:
        return None
    return NotEnoughMemory(
        "there is not enough memory",
        found=briefly(error),
        expected="the memory that the work needs",
        do="end other programs, or give less work at once",
    )


def pick(table: Mapping[str, Value], name: str, kind: str, *, also: str = "") -> Value:
    """The entry of `table` called `name`; `kind` says in the error what sort of name it is.

    `also` is appended to the list of what was expected, for names that are open-ended.
    Raises `UnknownName`, which lists the table and the nearest name.
    """
    if name in table:
        return table[name]
    raise unknown(table, name, kind, also=also)


def unknown(names: Iterable[str], name: str, kind: str, *, also: str = "") -> UnknownName:
    """The error for a name that is not among `names`."""
    known = list(names)
    guess = nearest(name, known)
    return UnknownName(
        f"there is no {kind} called '{name}'",
        found=f"'{name}'",
        expected=f"one of {', '.join(known)}{also}" if known else f"none is known{also}",
        do=f"did you mean '{guess}'?" if guess else f"choose a {kind} from the list",
    )


LIKENESS = 0.6
"""Share of letters from which a name is taken for a mistyped one: wasp does not mean ants."""

SYNONYMS = {
    "learning_rate": "lr", "rate": "lr", "base_lr": "lr", "learning_rate_init": "lr",
    "batch_size": "batch", "bs": "batch", "per_device_train_batch_size": "batch",
    "num_epochs": "epochs", "n_epochs": "epochs", "max_epochs": "epochs", "max_iter": "epochs",
    "num_train_epochs": "epochs", "wd": "weight_decay", "l2": "weight_decay",
    "model": "backbone", "model_name": "backbone", "arch": "backbone", "architecture": "backbone",
    "encoder": "backbone", "network": "backbone", "net": "backbone", "base_model": "backbone",
    "pretrained": "weights", "checkpoint": "weights", "checkpoint_path": "weights",
    "classifier": "head", "opt": "optimizer", "solver": "optimizer",
    "scheduler": "schedule", "sched": "schedule", "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule", "warmup_epochs": "warmup", "warmup_steps": "warmup",
    "num_workers": "workers", "n_jobs": "workers", "random_state": "seed", "random_seed": "seed",
    "validation_split": "val_fraction", "validation_fraction": "val_fraction",
    "val_split": "val_fraction", "test_size": "val_fraction", "cv": "folds", "n_splits": "folds",
    "num_folds": "folds", "k_folds": "folds", "transform": "augment", "transforms": "augment",
    "aug": "augment", "augmentation": "augment", "auto_augment": "augment",
    "class_weight": "balance", "class_weights": "balance", "sampler": "balance",
    "early_stopping": "patience", "early_stopping_patience": "patience", "metric": "monitor",
    "amp": "precision", "dtype": "precision", "mixed_precision": "precision", "fp16": "precision",
    "drop": "dropout", "drop_rate": "dropout", "hidden_size": "hidden", "hidden_dim": "hidden",
    "smoothing": "label_smoothing", "smooth": "label_smoothing", "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix", "accumulation_steps": "accumulate", "grad_accum": "accumulate",
    "gradient_accumulation_steps": "accumulate", "clip_grad": "clip", "max_grad_norm": "clip",
    "gradient_clip_val": "clip", "layer_decay": "stage_decay", "gpu": "cuda", "gpus": "cuda",
    "global_pool": "pool", "pooling": "pool", "output": "out", "output_dir": "out",
    "save_dir": "out", "exist_ok": "overwrite", "threshold": "reject_below",
    "confidence": "reject_below", "top_k": "top", "topk": "top",
}  # fmt: skip
"""What scikit-learn, torch, timm, Keras and others call an option or a value that tlkit has."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like `name` (letter case aside), or None when none is alike."""
    by_lower = {one.lower(): one for one in known}
    meant = SYNONYMS.get(name.lower().replace("-", "_"))
    if meant in known:
        return meant
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=LIKENESS)
    return by_lower[close[0]] if close else None


def printable(text: str) -> str:
    """`text` with every control and format character but the newline shown as an escape.

    A file name may hold terminal escapes, right-to-left marks or bytes that are no text.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one
        if one == "\n" or unicodedata.category(one)[0] != "C"
        else one.encode("unicode_escape", "backslashreplace").decode("ascii")
        for one in text
    )


def shell_word(text: str) -> str:
    """Quote a text for a command line to be typed, whatever the text holds."""
    if printable(text) == text and "\n" not in text:
        return shlex.quote(text)
    # In the way of bash, zsh and ksh: what cannot be seen cannot be typed either.
    shown = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in "\\'" else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f"$'{shown}'"


ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/([^/].*)", re.DOTALL)


def address(path: Path) -> str:
    """Return the address on a network that was given as a path, as it was typed; empty for a path.

    `Path` makes one slash of the two behind the scheme.
    """
    match = ADDRESS.match(str(path))
    return f"{match[1]}://{match[2]}" if match else ""


def install_command(distribution: str, version: str = "") -> str:
    """Return the command that installs a distribution; "" for what can be no name or version.

    Both may be the word of a file from anybody: nothing else of it gets into a command line.
    """
    if not NAME.fullmatch(distribution) or (version and not VERSION.fullmatch(version)):
        return ""
    return f"pip install {distribution}" + (f"=={version}" if version else "")


def briefly(error: BaseException, most: int = 200) -> str:
    """What was raised, in one line: its type and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0][:most]
    name = type(error).__name__
    return f"{name}: {first}" if first else name


def few(names: Sequence[str], most: int = 8) -> str:
    """At most `most` of `names` in one line, and how many were left out."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def listing(lines: Sequence[str], most: int = 20) -> str:
    """At most `most` of `lines`, and how many were left out: for errors that gather many faults."""
    shown = list(lines[:most])
    if len(lines) > most:
        shown.append(f"... and {len(lines) - most} more")
    return "\n".join(shown)
