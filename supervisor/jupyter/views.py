"""What the daemon's view of a kernel says: where it listens, and how a run of it ended.

Owns words and reading; asks nobody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyter_client.connect import port_names

from supervisor.disk.off_loop import begin
from supervisor.wording import how_it_died

Fields = dict[str, Any]


async def connect(manager: Any, file: str) -> None:
    """Have a client manager at the address in a connection file.  Raises OSError, TypeError, ValueError."""
    address = dict(json.loads(await begin(Path(file).read_bytes)))
    for port in port_names:
        setattr(manager, port, 0)  # what is not 0 is kept
    manager.load_connection_info(address)


def death_of(view: Fields, generation: int) -> Fields | None:
    """The death of this run, if it has died, and no other since."""
    death = view.get("last_death") or {}
    return death if death.get("generation") == generation else None


def how_it_ended(view: Fields, generation: int) -> str:
    """Why a run is over and what becomes of the kernel, for people."""
    phase, name, death = view["phase"], view["name"], death_of(view, generation)
    if death is None:
        how = f"{name} was {'restarted' if phase not in ('stopped', 'failed') else 'stopped'}"
    else:
        how = ", ".join(filter(None, (f"{name} died: {how_it_died(death)}", death.get("detail"))))
    if phase == "failed":
        return f"{how}. It is not started again: {view.get('reason')}"
    if phase == "stopped":
        return f"{how}. {view.get('reason') or ''}".strip()
    return f"{how}; started again as run {generation + 1}, its variables are lost."
