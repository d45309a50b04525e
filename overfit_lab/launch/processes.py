"""How worker processes come to be; light, so that it can begin before anything heavy is imported."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver
from typing import Any

# Workers are forked from a process that has done nothing but import what they need: that is paid once, and there are
# no threads that a fork would lose.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def process_context() -> Any:  # noqa: ANN401 - one of two classes of multiprocessing
    """Return the context that workers are started in."""
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["overfit_lab.launch.workers", "overfit_lab.launch.training"])
    return context


def warm_up() -> None:
    """Begin to import, in a process of its own, what every worker needs."""
    process_context()
    if _METHOD == "forkserver":
        # Ctrl-C reaches every process of a terminal. That one minds it only when it has imported everything, unless it
        # inherits that it need not.
        minded = signal.signal(signal.SIGINT, signal.SIG_IGN)
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, minded)
