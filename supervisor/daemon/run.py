"""The verb ``run``: takes the configuration, and hands over to the daemon.

Owns what comes before the daemon's own modules, whose import takes a moment.
"""

from __future__ import annotations

import gc
import os
import signal
from argparse import Namespace

from supervisor.control.lookup import config_of
from supervisor.disk.canary import Canaries

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""What these order is carried out even when they come before anybody listens."""


def run(arguments: Namespace) -> int:
    """Be the daemon; returns its exit code.  Raises NoConfig."""
    config = config_of(os.environ, arguments.file or arguments.config_option)
    canaries = Canaries()
    canaries.begin()  # it starts while we import
    # Until it listens: a SIGTERM would end it at once and leave an earlier one's kernels running.
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    gc.disable()  # what is imported lives as long as the daemon: there is nothing to collect
    from supervisor.daemon.life import live

    gc.freeze()
    gc.enable()
    try:
        return live(config, arguments, canaries)
    finally:
        canaries.close()
