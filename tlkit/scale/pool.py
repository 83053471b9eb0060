"""Pool: who does the shards of a job: this process, or the actors of a Ray cluster.

In: a `Job`, the `Work` that is to be done with each shard. Out: the `Part`s, as they are done.
Ray Data shares the shards out, starts actors again that were lost with their machine, and repeats
what they had begun. Each holds what the work needs (a model) once.
What the work finds wrong ends the job, with its own words; it would be found wrong each time.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from tlkit import cores, errors
from tlkit.card import versions
from tlkit.errors import (
    ClusterError,
    OptionError,
    TlkitError,
    briefly,
    listing,
    machine_error,
    raise_machine_error,
)
from tlkit.options import SpreadOptions
from tlkit.scale.job import SHOWN, Job, Part
from tlkit.steps import Tick

if TYPE_CHECKING:
    import pyarrow

    Do = Callable[[pyarrow.Table], pyarrow.Table]
    """The list of a shard -> its answers, row for row."""

MOST_TRIES = 10
"""Of one shard, whose process or machine was lost each time; then the shard itself is to blame."""

KNOCK_S = 10.0

CLUSTERS_ELSEWHERE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable; where it is 0, which it is by default on Windows and macOS, its servers listen on
the loopback address alone."""

MOST_BLOCKS = 10_000
"""Portions in which Ray Data hears of the shards."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a job has left in its folder."""

    out: str
    images: int
    bad: int
    """Images that could not be read; the column `error` has the reasons."""
    parts: int
    found: int
    """Parts that were there before, and were not done again."""
    unreadable: tuple[tuple[str, str], ...]
    """Some of the bad ones, with their reasons."""


class Work(Protocol):
    """What is done with each shard. It is pickled, and says where it computes."""

    @property
    def device(self) -> str:
        """As the option has it."""

    def begin(self, job: Job) -> Do:
        """Load what is needed, once in each process. Raises `TlkitError`."""


def refuse_missing(options: SpreadOptions) -> None:
    """Raise `OptionError` where a package is missing, or an option would be ignored."""
    needed = {"ray": ("ray", "pyarrow"), "parquet": ("pyarrow",)}
    extra = "ray" if options.ray else "parquet"
    missing = [one for one in needed[extra] if find_spec(one) is None]
    if missing:
        raise OptionError(
            "the results need packages that are not installed",
            found=f"no {' and no '.join(missing)}",
            expected=f"the extra tlkit[{extra}]",
            do=f"pip install 'tlkit[{extra}]'",
        )
    if not options.ray:
        options.refuse(["cpus"], "--ray; without it this process does it all")


def run(
    job: Job, work: Work, options: SpreadOptions, *, what: str
) -> Generator[Tick, None, Written]:
    """Do what is not done yet, and write the manifest. Yields ticks. Raises as `do`."""
    parts = job.found()
    before = len(parts)
    done = sum(one.rows for one in parts.values())
    yield Tick(what=what, done=done, total=job.images)
    todo = [one for one in range(job.shards) if one not in parts]
    with contextlib.closing(do(job, work, todo, options)) as doing:
        for part in doing:
            parts[part.shard] = part
            done += part.rows
            yield Tick(what=what, done=done, total=job.images)
    job.complete(parts)
    bad = [one for shard in range(job.shards) for one in parts[shard].unreadable]
    return Written(
        out=job.out,
        images=job.images,
        bad=sum(one.bad for one in parts.values()),
        parts=job.shards,
        found=before,
        unreadable=tuple(bad[:SHOWN]),
    )


def do(
    job: Job, work: Work, shards: Sequence[int], options: SpreadOptions
) -> Generator[Part, None, None]:
    """Do these shards, in any order. Raises `ClusterError`, and what the work raises."""
    if not shards:
        return
    if options.ray:
        with _own_cluster_is_private(options.ray), _quiet(), _joined(options.ray):
            yield from _by_ray(job, work, shards, options)
        return
    begun = work.begin(job)
    for shard in shards:
        yield job.finish(shard, begun(job.rows(shard)))


class Actor:
    """What Ray Data starts once per share of a machine, and calls for shard after shard."""

    def __init__(self, job: Job, kept: Kept, cpus: int) -> None:
        self.job = job
        self.kept = kept
        self.begun: Do | None = None
        cores.share(cpus)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """A line for each shard: its part, or what was wrong, which ends the job."""
        return {"told": [self._told(int(shard)) for shard in batch["shard"]]}

    def _told(self, shard: int) -> str:
        try:
            # An actor that was lost may have been done with it.
            part = self.job.done(shard)
            if part is None:
                _refuse_deadly(shard, self.kept)
                self.begun = self.begun or self._begin()
                part = self.job.finish(shard, self.begun(self.job.rows(shard)))
            return json.dumps(asdict(part))
        except Exception as error:  # a mistake of ours is one on every machine
            known = error if isinstance(error, TlkitError) else machine_error(error)
            if known is not None:
                said = (known.about, known.found, known.expected, known.do)
                return json.dumps({"error": type(known).__name__, "said": said})
            raised = error.__traceback__
            while raised is not None and raised.tb_next is not None:
                raised = raised.tb_next
            where = f" ({raised.tb_frame.f_code.co_name}:{raised.tb_lineno})" if raised else ""
            said = (f"shard {shard} cannot be done", f"{briefly(error)}{where}", "its answers", "")
            return json.dumps({"error": "ClusterError", "said": said})

    def _begin(self) -> Do:
        import ray

        _refuse_other_versions(self.job)
        work: Work = ray.get(self.kept.work)
        return work.begin(self.job)


class Tries:
    """How often each shard was begun. One of it serves all actors."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}

    def begin(self, shard: int) -> int:
        """How often it was begun before."""
        before = self.of.get(shard, 0)
        self.of[shard] = before + 1
        return before


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What Ray keeps for all actors, by references that it does not follow by itself."""

    work: Any
    """It may be large."""
    tries: Any
    most_tries: int


def _refuse_deadly(shard: int, kept: Kept) -> None:
    """Raise `ClusterError` for a shard that has ended its process again and again."""
    import ray
    from ray.exceptions import RayError

    try:
        tries = ray.get(kept.tries.begin.remote(shard))
    except RayError:  # who counts was lost, or is out of reach for a while
        return
    if tries >= kept.most_tries:
        raise ClusterError(
            f"shard {shard} has ended its process {tries} times",
            found="an image that crashes its decoder, too little memory, or machines that die",
            expected="a process that survives its images",
            do="give it more memory (larger --cpus: fewer processes; smaller --batch), or look at "
            "the images of that shard in _paths.parquet, one row group for each",
        )


def _refuse_other_versions(job: Job) -> None:
    here = versions()
    other = [one for one in job.versions if here.get(one) != job.versions[one]]
    if other:
        raise ClusterError(
            "a machine of the cluster is set up otherwise",
            found=listing([f"{one} {here.get(one, 'missing')}" for one in other]),
            expected=listing([f"{one} {job.versions[one]}" for one in other]),
            do="install the same versions on every machine",
        )


def _by_ray(job: Job, work: Work, shards: Sequence[int], options: SpreadOptions) -> Iterator[Part]:
    import ray
    import ray.data
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    share = _share(options.cpus, gpu=work.device != "cpu")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    tries = ray.remote(Tries).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    kept = Kept(work=ray.put(work), tries=tries.remote(), most_tries=MOST_TRIES)
    try:
        answers = ray.data.from_items(
            [{"shard": one} for one in shards],
            override_num_blocks=min(len(shards), MOST_BLOCKS),
        ).map_batches(
            Actor,
            fn_constructor_kwargs={"job": job, "kept": kept, "cpus": share.cpus},
            # One shard at a time: what waits for one actor cannot be done by another.
            compute=ray.data.ActorPoolStrategy(
                size=min(share.count, len(shards)), max_tasks_in_flight_per_actor=1
            ),
            batch_size=1,
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
        )
        for batch in answers.iter_batches(batch_size=None, prefetch_batches=0):
            for line in batch["told"]:
                yield _part(json.loads(line))
    except RayError as error:
        raise ClusterError(
            "the cluster has given up",
            found=briefly(error),
            expected="machines that do the work, or are replaced when they are lost",
            do="see what has become of it (`ray status`); the same command goes on from here",
        ) from error


def _part(told: dict[str, Any]) -> Part:
    """What an actor has said. Raises the error that it had."""
    if "error" not in told:
        unreadable = tuple((path, reason) for path, reason in told.pop("unreadable"))
        return Part(**told, unreadable=unreadable)
    kind: type[TlkitError] = getattr(errors, told["error"], TlkitError)
    about, found, expected, what = told["said"]
    raise kind(about, found=found, expected=expected, do=what or "tell us, with what was found")


@dataclass(frozen=True, kw_only=True)
class _Share:
    """What each actor gets."""

    count: int
    """Of actors."""
    cpus: int
    gpus: int


def _share(cpus: int, *, gpu: bool) -> _Share:
    """An actor for each GPU of the cluster, or for so many CPUs of a machine; 0: all of them."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [one["Resources"] for one in nodes if one["Alive"]]
    machines = [(int(one.get("CPU", 0)), int(one.get("GPU", 0)) * gpu) for one in alive]
    if any(gpus for _, gpus in machines):
        machines = [one for one in machines if one[1]]
        each = cpus or max(1, min(one // gpus for one, gpus in machines))
        return _Share(count=sum(gpus for _, gpus in machines), cpus=each, gpus=1)
    most = [one for one, _ in machines if one]
    each = cpus or min(most, default=1)
    count = sum(one // each for one in most)
    if not count:
        raise ClusterError(
            "the cluster has no room for this job",
            found=f"CPUs of its machines: {', '.join(map(str, most)) or 'none'}",
            expected=f"a machine with {each}",
            do="choose a smaller --cpus, or add machines",
        )
    return _Share(count=count, cpus=each, gpus=0)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    """A Ray cluster: the one that this program is in already, that of the address, or one of
    processes on this machine.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    named = _cluster_named(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if not named:
        options["include_dashboard"] = False
    try:
        if named:
            _knock(named)
        with _no_stderr():
            ray.init(address=named or "local", **options)
    except (ConnectionError, OSError, RuntimeError, ValueError, ImportError) as error:
        raise_machine_error(error)
        raise ClusterError(
            "the Ray cluster cannot be joined",
            found=f"{named or 'this machine'}: {briefly(error)}",
            expected="auto, or the address of a cluster's head, such as 10.0.0.1:6379",
            do="see that it runs (`ray status`) and has the same versions of Python and Ray",
        ) from error
    try:
        if not named:
            _check_loopback()
        yield
    finally:
        ray.shutdown()


def _cluster_named(address: str) -> str:
    """Return the address of the cluster to join; empty where tlkit starts one."""
    return os.environ.get("RAY_ADDRESS", "") if address == "auto" else address


@contextlib.contextmanager
def _own_cluster_is_private(address: str) -> Iterator[None]:
    """Keep a cluster that tlkit starts to this machine, and to those who have its token.

    Whoever reaches Ray's servers runs code: by default they listen on all of a machine's addresses,
    before Ray 2.59 without a token. The variables have to be there before Ray is imported.
    """
    ray = sys.modules.get("ray")
    if _cluster_named(address) or (ray is not None and ray.is_initialized()):
        yield
        return
    wanted = {CLUSTERS_ELSEWHERE: "0"}
    if "RAY_AUTH_MODE" not in os.environ:
        wanted["RAY_AUTH_MODE"] = "token"
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            # Otherwise Ray writes one into the home folder, which may be read-only.
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # Ray keeps the token that it has read: the next cluster may have another.
        with contextlib.suppress(ImportError, AttributeError):
            import ray._raylet as core

            core.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


def _check_loopback() -> None:
    """Raise `ClusterError` where the cluster that was just started listens on other addresses."""
    import ray.util

    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if not ipaddress.ip_address(address).is_loopback:
        raise ClusterError(
            "the Ray cluster on this machine can be reached from others",
            found=f"Ray was imported before, and listens on {address}",
            expected="127.0.0.1: whoever reaches Ray's servers can run code here",
            do=f"set {CLUSTERS_ELSEWHERE}=0 before ray is imported, or start a cluster of your own "
            "and name its address",
        )


def _knock(address: str) -> None:
    """Raise `OSError` where nobody answers, for which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """What is not Python's says nothing there: Ray, that it was told to say nothing."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray says nothing on the terminal, and nothing to its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    import ray.data

    ray.data.DataContext.get_current()
    loggers = [logging.getLogger(one) for one in ("ray", "ray.data")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
