"""What the daemon's view of a kernel says: where it listens, and how a run of it ended.

Owns words and reading; asks nobody.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from jupyter_client.connect import port_names

from supervisor.wording import CAUSES

Fields = dict[str, Any]


def read_address(path: Path) -> Fields:
    """What a connection file says.  Raises OSError and ValueError."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a connection file")
    return content


async def connect(manager: Any, file: str) -> None:
    """Have a client manager at the address in a connection file.  Raises OSError and ValueError."""
    address = await asyncio.to_thread(read_address, Path(file))
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
        signal, code = death.get("signal"), death.get("exit_code")
        what = f"killed by {signal}" if signal else f"exited with code {code}" if code is not None else ""
        why = CAUSES.get(str(death.get("cause")), "")
        words = ", ".join(part for part in (what, why, death.get("detail")) if part) or "nobody knows how"
        how = f"{name} died: {words}"
    if phase == "failed":
        return f"{how}. It is not started again: {view.get('reason')}"
    if phase == "stopped":
        return f"{how}. {view.get('reason') or ''}".strip()
    return f"{how}; started again as run {generation + 1}, its variables are lost."
