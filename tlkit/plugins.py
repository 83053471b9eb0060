"""Plugins: what is installed, what of it is broken, what is meant.

find (metadata only) -> choose by name -> load (imports the one plugin).
In: the entry points of installed distributions, in the groups `tlkit.backbones` (one name each),
`tlkit.families` (open sets, FAMILY/NAME) and those of tables (rows.py). Out: `Found` records, a
`Backbone`, or `Broken`.
A plugin is imported only when it is chosen; one that raises is named, and stops nothing else.
`TLKIT_PLUGINS` limits what is looked at: names of distributions or of packages, separated by
commas; set but empty, no plugin at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from tlkit.backbone import Backbone, Family
from tlkit.errors import PluginError, TlkitError, briefly, nearest, shell_word, unknown

log = logging.getLogger("tlkit")

BACKBONES = "tlkit.backbones"
FAMILIES = "tlkit.families"
HEADS, POLICIES, AUGMENTATIONS = "tlkit.heads", "tlkit.policies", "tlkit.augmentations"
REPORTS = "tlkit.reports"
OPTIONS = {
    BACKBONES: "--backbone", FAMILIES: "--backbone",
    HEADS: "--head", POLICIES: "--tta", AUGMENTATIONS: "--augment", REPORTS: "report",
}  # fmt: skip
"""The groups, each with the option that takes its names; of parts of reports, the command."""

Record = TypeVar("Record")

LIMIT_S = 30.0
"""After which an import is said to hang. It brings no torch: a hundredth of a second will do."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An entry point, not loaded."""

    name: str
    group: str
    value: str
    """module:attribute"""
    distribution: str
    version: str
    entry: EntryPoint

    @property
    def qualified(self) -> str:
        """DISTRIBUTION:NAME, which is never ambiguous."""
        return f"{self.distribution}:{self.name}"

    @property
    def option(self) -> str:
        """That which takes the name."""
        return OPTIONS[self.group]

    @property
    def is_family(self) -> bool:
        return self.group == FAMILIES

    @property
    def module(self) -> str:
        return self.value.partition(":")[0].strip()


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    found: Found
    reason: str
    cause: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A loaded backbone and the plugin that it came from."""

    backbone: Backbone
    found: Found


def find(groups: Sequence[str] = (BACKBONES, FAMILIES)) -> tuple[Found, ...]:
    """What is installed of these groups, by name. Reads metadata, imports no plugin."""
    wanted = _limit()
    found = []
    for group in groups:
        for entry in entry_points(group=group):
            distribution = entry.dist
            one = Found(
                name=entry.name,
                group=group,
                value=entry.value,
                distribution=distribution.name if distribution else "(unknown)",
                version=distribution.version if distribution else "(unknown)",
                entry=entry,
            )
            names = {_canonical(one.distribution), _canonical(one.module.partition(".")[0])}
            if wanted is None or wanted & names:
                found.append(one)
    unique = {(one.group, one.name, one.value, one.distribution): one for one in found}
    return tuple(
        sorted(unique.values(), key=lambda one: (groups.index(one.group), natural(one.name)))
    )


def _limit() -> set[str] | None:
    """The names in TLKIT_PLUGINS, or None where it is not set."""
    given = os.environ.get("TLKIT_PLUGINS")
    if given is None:
        return None
    return {_canonical(one.strip()) for one in given.split(",") if one.strip()}


def _canonical(name: str) -> str:
    """A distribution's name as installers compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def natural(name: str) -> tuple[tuple[int, str | int], ...]:
    """A sort key that puts vgg11 before vgg16 and resnet50 before resnet101."""
    parts: list[tuple[int, str | int]] = []
    digits = ""
    for one in [*name, ""]:
        if one.isdecimal() and one.isascii():
            digits += one
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        if one:
            parts.append((1, one))
    return tuple(parts)


def load(found: Found) -> Backbone | Family | Broken:
    """The backbone or family, or the reason why there is none. Imports the plugin."""
    return load_as(found, Family) if found.is_family else load_as(found, Backbone)


def load_as(found: Found, kind: type[Record]) -> Record | Broken:
    """The plugin's record of a kind, or the reason why it has none. Imports the plugin."""
    try:
        with printing_aside(), _watched(found):
            record = found.entry.load()
    except PluginExit as error:
        return Broken(found=found, reason=str(error), cause=error)
    except Exception as error:  # a stranger's import may raise anything
        return Broken(found=found, reason=f"{type(error).__name__}: {error}", cause=error)
    if not isinstance(record, kind):
        return Broken(
            found=found,
            reason=f"{found.value} is a {type(record).__name__}, not a {kind.__name__}",
        )
    return record


def must_load(found: Found, kind: type[Record]) -> Record:
    """The plugin's record of a kind. Raises `PluginError` for a broken plugin."""
    record = load_as(found, kind)
    if isinstance(record, Broken):
        raise _broken(record) from record.cause
    return record


def names_in(family: Family, found: Found) -> list[str]:
    """Every name of a family. Raises `PluginError` where its code fails."""
    try:
        with printing_aside():
            return [str(name) for name in family.names()]
    except TlkitError:
        raise
    except Exception as error:  # a stranger's code
        raise _broken(Broken(found=found, reason=f"its names: {briefly(error)}")) from error


def plugin_that_ended(error: BaseException) -> PluginError | None:
    """The error for code outside of tlkit that raised what ends the program; None for other code.

    An exit with a status other than 0 from code that is no plugin's stays what it is.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    package = module.partition(".")[0]
    if package in ("tlkit", "click", "") or trace is None:
        return None
    owners = [one for one in find(tuple(OPTIONS)) if one.module.partition(".")[0] == package]
    if not owners and isinstance(error, SystemExit) and error.code not in (0, None):
        return None
    whose = f" of {owners[0].distribution} {owners[0].version}" if owners else ""
    return PluginError(
        "code outside of tlkit ended the command before it was done",
        found=f"{type(error).__name__}: {error}, raised in {module}{whose}, "
        f"line {trace.tb_lineno} of {trace.tb_frame.f_code.co_filename}",
        expected="code that returns, or raises an error",
        do=f"update or remove it (pip uninstall {shell_word(owners[0].distribution)}), or tell "
        "its author"
        if owners
        else f"tell the author of {package}",
    )


class PluginExit(Exception):
    """Stand for what would have ended the program: a plugin raised what is no `Exception`."""


@contextlib.contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turn `SystemExit` and its like, raised by a plugin's code, into `PluginExit`.

    Ctrl-C remains what it is. Nothing can be done here about `os._exit`; see cli/ending.py.
    """
    try:
        yield
    except (Exception, GeneratorExit):
        raise
    except BaseException as error:
        if type(error) is KeyboardInterrupt:
            raise
        raise PluginExit(f"{type(error).__name__}: {error}") from error


@contextlib.contextmanager
def printing_aside() -> Iterator[None]:
    """Run a plugin's code: it prints to standard error, and cannot end the program by raising.

    Standard output may be somebody's table.
    """
    with contextlib.redirect_stdout(sys.stderr), exits_as_errors():
        yield


@contextlib.contextmanager
def _watched(found: Found) -> Iterator[None]:
    """Name the plugin if the block does not end. Nothing can safely end an import in this process;
    vetting.py does it in one of its own.
    """

    def tell() -> None:
        log.warning(
            "the plugin %s of %s %s is still being imported after %g s: Ctrl-C, and remove it "
            "(pip uninstall %s) or leave it out (TLKIT_PLUGINS)",
            found.name, found.distribution, found.version, LIMIT_S, found.distribution,
        )  # fmt: skip

    timer = threading.Timer(LIMIT_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def choose(name: str, among: Sequence[Found] | None = None) -> Chosen:
    """The backbone that `name` means: NAME, FAMILY/NAME, or DISTRIBUTION:NAME of either.

    Raises `UnknownName` for one that is not installed, `PluginError` for a broken plugin and for
    a name that two distributions bring.
    """
    installed = find() if among is None else among
    prefix, separator, rest = name.partition(":")
    # A family's names may hold colons of their own; they follow the slash.
    if not separator or "/" in prefix:
        prefix, rest = "", name
    family_name, slash, member = rest.partition("/")
    matches = [
        one
        for one in installed
        if one.name == (family_name if one.is_family else rest)
        and (not one.is_family or slash)
        and prefix in ("", one.distribution)
    ]
    if not matches:
        raise _not_installed(name, rest, installed)
    found = only(matches, rest)
    record = load(found)
    if isinstance(record, Broken):
        raise _broken(record) from record.cause
    if isinstance(record, Family):
        try:
            with printing_aside():
                record = record.backbone(member)
        except TlkitError:
            raise
        except Exception as error:
            raise _broken(Broken(found=found, reason=f"{type(error).__name__}: {error}")) from error
    return Chosen(backbone=record, found=found)


def only(matches: Sequence[Found], name: str) -> Found:
    """The one that matches what was asked for by that name. Raises `PluginError` for several."""
    option = matches[0].option
    if len(matches) > 1:
        raise PluginError(
            f"several plugins bring what {option} {name} means",
            found=", ".join(f"{one.qualified} ({one.version})" for one in matches),
            expected="one",
            do="say which: "
            + " or ".join(f"{option} {one.distribution}:{name}" for one in matches),
        )
    return matches[0]


def _not_installed(name: str, rest: str, installed: Iterable[Found]) -> TlkitError:
    """The error for a backbone that no plugin brings, with what is there."""
    names = [f"{one.name}/NAME" if one.is_family else one.name for one in installed]
    family = rest.partition("/")[0]
    for one in installed:
        if one.is_family and one.name == family:
            return unknown(
                names, name, "backbone", also=f"; '{family}' needs a name after the slash"
            )
    error = unknown(names, name, "backbone")
    if guess := _in_families(rest, installed) or nearest(rest, names):
        error.do = f"did you mean '{guess}'?"
    if not names:
        return PluginError(
            "no backbone plugin is installed",
            found="no entry point in the groups tlkit.backbones and tlkit.families",
            expected="at least one",
            do="install a plugin, or unset TLKIT_PLUGINS",
        )
    return error


def _in_families(name: str, installed: Iterable[Found]) -> str:
    """Return the full name of a backbone where a family has one of that name; else nothing."""
    for found in installed:
        record = load(found) if found.is_family else None
        if isinstance(record, Family) and name in _names_of(record):
            return f"{found.name}/{name}"
    return ""


def _names_of(family: Family) -> Collection[str]:
    """Return the names of a family; none where its plugin fails, which is not the matter here."""
    with contextlib.suppress(Exception), printing_aside():
        return set(family.names())
    return ()


def _broken(broken: Broken) -> PluginError:
    found = broken.found
    return PluginError(
        f"the plugin for '{found.name}' does not load",
        found=f"{found.distribution} {found.version}, {found.value}: {broken.reason}",
        expected="an importable plugin",
        do=f"update or remove it (pip uninstall {shell_word(found.distribution)}), or tell its "
        "author",
    )
