"""The programs of Jupyter on supervised kernels: a server extension, a provisioner, verbs.

Owns nothing of a kernel but the way to it: the daemon alone starts, stops,
restarts and watches, and never loads this package.  It is for an environment
that has jupyter_server (``kernel-supervisor[jupyter]``).  What is in here
needs nothing until Jupyter Server asks for it.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "supervisor.jupyter"}]


def _link_jupyter_server_extension(app: Any) -> None:
    from supervisor.jupyter.extension import link

    link(app)


def _load_jupyter_server_extension(app: Any) -> None:
    from supervisor.jupyter.extension import load

    load(app)
