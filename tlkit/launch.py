"""Launch: this very command, in several processes on this machine.

In: the command's arguments and how many processes. Out: an exit status.
The processes are torch's (torch.distributed's elastic launcher, which is torchrun's): it starts
them, tells each its place, and stops all when one dies. Where one was lost, all are started once
more, and the fit goes on from its checkpoint.
Next door: ranks.py (what a process makes of its place).
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable, Sequence

from tlkit.errors import OptionError

AGAIN = 3
"""Times that lost processes are started once more."""

OURS = (1, 2, 70, 130)
"""Exit statuses that say what is the matter: starting again would say it again."""


def processes(devices: str) -> int:
    """How many processes `--devices` means: for `all` one for each GPU, and one without any.

    Raises `OptionError`.
    """
    if devices == "all":
        import torch

        return max(1, torch.cuda.device_count())
    if not devices.isdecimal() or int(devices) < 1:
        raise OptionError(
            "--devices cannot be used",
            found=f"--devices {devices}",
            expected="all, or a whole number from 1: as many processes",
            do="correct it, or leave it out",
        )
    return int(devices)


def launch(arguments: Sequence[str], count: int, *, tell: Callable[[str], object]) -> int:
    """Run `tlkit ARGUMENTS` in `count` processes that know of each other; the exit status.

    `tell` is given a line where some were lost.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What it tells are tracebacks of its own.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL + 1)
    started = 0
    while True:
        started += 1
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "tlkit", *arguments)
            return 0
        except SignalException:
            return 130
        except ChildFailedError as error:
            ended = [one.exitcode for one in error.failures.values()]
            status = next((one for one in ended if one in OURS), None)
            if status is not None or started > AGAIN:
                return status or 1
        tell("a process was lost: all are started again, and go on")
        if "--resume" not in arguments:
            arguments = [*arguments, "--resume"]
