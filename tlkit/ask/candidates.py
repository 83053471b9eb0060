"""Candidates: which backbones a search tries, and with which weights.

In: the options of a search, what is installed. Out: `Candidate`s, and those that are left out with
the reason. Nothing is downloaded, and no network is built.
Next door: trial.py (what a candidate makes of photos).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tlkit.backbone import Backbone, Family, InputSpec
from tlkit.errors import OptionError, PluginError, TlkitError, briefly, raise_machine_error
from tlkit.model.build import plugin_failed, weight_sets
from tlkit.options import SearchOptions
from tlkit.plugins import Broken, Found, choose, find, load, printing_aside
from tlkit.weights import WeightSet, is_random, looks_like_file, unread


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A backbone with its weights."""

    name: str
    """As `--backbone` takes it."""
    weights: str
    """As `--weights` takes it."""
    control: bool
    """Whether the weights are random: it shows what the photos give away without any learning."""
    input: InputSpec

    @property
    def label(self) -> str:
        """NAME, or NAME=WEIGHTS where they are not its default ones."""
        return self.name if self.weights == "default" else f"{self.name}={self.weights}"


@dataclass(frozen=True, kw_only=True)
class NotTried:
    """A backbone that was not tried, or not to the end, and why."""

    name: str
    why: str


Entry = Candidate | NotTried

NO_WEIGHTS = "its weights are not on this disk"


def candidates(options: SearchOptions) -> tuple[tuple[Candidate, ...], tuple[NotTried, ...]]:
    """Those to try, each once, and those that cannot be.

    A plugin that does not load is one of the latter. Raises `UnknownName` for a name that is not
    installed, `WeightsError` for a file that is not there, and `OptionError` where nothing is left
    that could be recommended.
    """
    found: list[Entry] = []
    if options.backbone:
        found += [_named(word.strip(), options.download) for word in options.backbone.split(",")]
    if options.installed or not options.backbone:
        found += _installed(options.download)
    unique = {(one.label if isinstance(one, Candidate) else one.name): one for one in found}
    tried = tuple(one for one in unique.values() if isinstance(one, Candidate))
    left = tuple(one for one in unique.values() if isinstance(one, NotTried))
    if all(one.control for one in tried):
        raise _nothing(tried, left)
    return tried, left


def _nothing(tried: Sequence[Candidate], left: Sequence[NotTried]) -> OptionError:
    lines = [f"{one.label}: random weights, a control" for one in tried]
    lines += [f"{one.name}: {one.why}" for one in left[:8]]
    return OptionError(
        "there is no backbone to choose",
        found="\n".join(lines) or "no backbone whose weights are on this disk",
        expected="at least one with weights that were learnt",
        do="name some with --backbone, NAME=FILE for a weight file, or allow --download",
    )


def _named(word: str, download: bool) -> Entry:
    """What NAME or NAME=WEIGHTS means."""
    name, equals, weights = word.partition("=")
    if not name or (equals and not weights):
        raise OptionError(
            "a backbone's name is missing",
            found=f"--backbone with '{word}' between its commas",
            expected="NAME, or NAME=WEIGHTS: a file, a set's name or none",
            do="correct the list",
        )
    try:
        return _entry(name, choose(name).backbone, weights, download)
    except PluginError as error:
        return NotTried(name=name, why=_in_a_line(error))


def _installed(download: bool) -> Iterator[Entry]:
    """Every installed backbone with weights, and those that are broken."""
    installed = find()
    names = [one.name for one in installed]
    for found in installed:
        name = found.qualified if names.count(found.name) > 1 else found.name
        record = load(found)
        if isinstance(record, Broken):
            yield NotTried(name=name, why=f"its plugin does not load: {record.reason}")
        elif isinstance(record, Family):
            yield from _of_family(name, record, found)
        else:
            yield from _published(name, record, download)


def _of_family(name: str, family: Family, found: Found) -> Iterator[Entry]:
    """The members whose weights are on the disk: to try all that could be downloaded has no end."""
    try:
        with printing_aside():
            members = list(family.on_disk())
            backbones = [(f"{name}/{one}", family.backbone(one)) for one in members]
    except Exception as error:  # a stranger's code
        raise_machine_error(error)
        yield NotTried(name=f"{name}/NAME", why=f"{found.distribution} failed: {briefly(error)}")
        return
    for each, backbone in backbones:
        yield from _published(each, backbone, download=False)


def _published(name: str, backbone: Backbone, download: bool) -> Iterator[Entry]:
    """The backbone, unless nobody has published weights of it."""
    try:
        entry = _entry(name, backbone, "", download)
    except PluginError as error:
        entry = NotTried(name=name, why=_in_a_line(error))
    if isinstance(entry, NotTried) or not entry.control:
        yield entry


def _entry(name: str, backbone: Backbone, weights: str, download: bool) -> Entry:
    """With the weights that are asked for, or the first of its own that can be had."""
    sets = weight_sets(backbone)
    if not weights:
        weights = _own(backbone, sets, download)
        if not weights:
            return NotTried(name=name, why=NO_WEIGHTS)
    chosen = unread(sets, weights)
    if not (download or looks_like_file(weights) or is_random(sets, weights)):
        there = [one for one in sets if one.name == chosen.name]
        if not _on_disk(backbone, there):
            return NotTried(name=f"{name}={weights}", why=NO_WEIGHTS)
    return Candidate(
        name=name, weights=weights, control=is_random(sets, weights), input=chosen.input
    )


def _own(backbone: Backbone, sets: Sequence[WeightSet], download: bool) -> str:
    """Which of a backbone's own weights to take; empty for none."""
    if is_random(sets, "default"):
        return "none"
    there = _on_disk(backbone, sets)
    if not there:
        return "default" if download else ""
    return "default" if there[0] is sets[0] else there[0].name


def _on_disk(backbone: Backbone, sets: Iterable[WeightSet]) -> list[WeightSet]:
    """Those that need no download. Raises `PluginError` where a stranger's code fails."""
    try:
        with printing_aside():
            return [one for one in sets if one.source.on_disk()]
    except Exception as error:
        raise plugin_failed(backbone, error) from error


def _in_a_line(error: TlkitError) -> str:
    return f"{error.about}: {error.found}".replace("\n", " ")
